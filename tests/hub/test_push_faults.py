"""A push when the Hub, the network or somebody else interferes: the repository is the old model or the new, whole."""

from __future__ import annotations

import itertools
import logging
import re

import pytest
from hub_runs import listing, make_run

from hf_lowlabel.hub import push as module
from hf_lowlabel.hub.push import push
from hf_lowlabel.hub.upload import PushError

KINDS = [(503, False), (500, True), (None, False), (None, True)]  # (status or dropped, done all the same)


@pytest.fixture
def runs(tmp_path, monkeypatch):
    """Two models: the one on the Hub, and the one that is pushed over it. Their cards are rendered once."""
    render, known = module.hub_card, {}
    monkeypatch.setattr(
        module, "hub_card", lambda folder, *id: known.get(folder) or known.setdefault(folder, render(folder, *id))
    )
    return make_run(tmp_path / "old", 1.0), make_run(tmp_path / "new", 2.0)


def steps(hub) -> list[tuple[str, str]]:
    """(method, path) of every request so far, as patterns that match the same request of a later push."""
    return [
        (m, re.sub(r"[0-9a-f]{40,64}", "[0-9a-f]{40,64}", re.escape(path.partition("?")[0])))
        for m, path, _ in hub.requests
    ]


def script(hub, runs, **push_arguments) -> tuple[list[tuple[str, str, int]], dict, dict]:
    """The requests of an undisturbed push, each with its number among its like; what is there before and after it."""
    old, new = runs
    push(old, "org/pets")
    before = hub.repos["model", "org/pets"].content()
    hub.requests.clear()
    push(new, "org/pets", **push_arguments)
    seen: dict = {}
    out = []
    for step in steps(hub):
        if r"run\.json" in step[1]:
            continue  # read as README.md is
        out.append((*step, seen.setdefault(step, 0)))
        seen[step] += 1
    repo = hub.repos["model", "org/pets"]
    return out, before, repo.content("refs/pr/1" if push_arguments else "main")


def start_over(hub, before: dict) -> None:
    hub.repos.clear(), hub.objects.clear(), hub.faults.clear()
    hub.add("model", "org/pets", before)


@pytest.mark.parametrize("kind", KINDS, ids=["503", "500 after it was done", "dropped", "dropped after it was done"])
def test_every_request_of_a_push_fails_once(hub, runs, kind):
    requests, before, after = script(hub, runs)
    assert {m for m, *_ in requests} >= {"GET", "POST", "PUT"} and any("commit" in path for _, path, _ in requests)
    for method, path, skip in requests:
        start_over(hub, before)
        hub.fault(path, kind[0], method=method, skip=skip, done=kind[1])
        push(runs[1], "org/pets")
        repo = hub.repos["model", "org/pets"]
        assert not any(f["times"] for f in hub.faults), (method, path)  # it did happen
        assert repo.content() == after, (method, path)
        assert len(repo.history()) == 2, (method, path)  # not committed twice


@pytest.mark.parametrize("kind", KINDS, ids=["503", "500 after it was done", "dropped", "dropped after it was done"])
def test_a_hub_that_goes_away_for_good_and_comes_back(hub, runs, kind):
    requests, before, after = script(hub, runs)
    local = listing(runs[1])
    states = []
    for method, path, skip in requests:
        start_over(hub, before)
        hub.fault(path, kind[0], times=-1, method=method, skip=skip, done=kind[1])
        try:
            push(runs[1], "org/pets")
        except PushError as error:
            assert re.search("Nothing is lost.*hf-lowlabel push .*new org/pets", str(error))
            assert listing(runs[1]) == local, (method, path)
        else:  # what was asked for was done, and the next attempt finds it so
            assert kind[1] and hub.repos["model", "org/pets"].content() == after, (method, path)
        found = hub.repos["model", "org/pets"].content()
        assert found in (before, after), (method, path)
        states.append(found == after)
        hub.faults.clear()
        push(runs[1], "org/pets")
        assert hub.repos["model", "org/pets"].content() == after
        assert len(hub.repos["model", "org/pets"].history()) == 2, (method, path)
    assert any(states) and not all(states)


def test_first_push_of_all_when_every_request_fails_once(hub, runs):
    push(runs[1], "org/new")
    after, requests = hub.repos["model", "org/new"].content(), [*zip(*[iter(steps(hub))])]
    for ((method, path),), (status, done) in itertools.product(requests, [KINDS[0], KINDS[3]]):
        hub.repos.clear(), hub.objects.clear(), hub.faults.clear()
        hub.fault(path, status, method=method, done=done)
        push(runs[1], "org/new")
        assert hub.repos["model", "org/new"].content() == after and len(hub.repos["model", "org/new"].history()) == 2


def test_a_pull_request_is_opened_once(hub, runs):
    requests, before, after = script(hub, runs, create_pr=True)
    requests = [r for r in requests if re.search("refs|preupload|commit|paths-info", r[1])]
    for (method, path, skip), (status, done) in itertools.product(requests, KINDS):
        start_over(hub, before)
        hub.fault(path, status, method=method, skip=skip, done=done)
        page = push(runs[1], "org/pets", create_pr=True).pull_request
        repo = hub.repos["model", "org/pets"]
        assert repo.content() == before and repo.content("refs/pr/1") == after, (method, path, status, done)
        assert "refs/pr/2" not in repo.refs and page.endswith("/org/pets/discussions/1"), (method, path, status, done)


def test_somebody_else_commits_in_between(hub, runs, tmp_path, caplog):
    """The other commit changes a file that this push would leave out as unchanged: without the check of the parent the
    result would be a mixture of both."""
    old, new = runs
    (new / "config.json").write_bytes((old / "config.json").read_bytes())
    push(old, "org/pets")

    def interfere(method, path):
        if "/commit/" in path:
            hub.before = lambda method, path: None
            hub.add("model", "org/pets", {"config.json": b'{"of": "somebody else"}', "figure.png": b"theirs"}, "other")

    hub.before = interfere
    with caplog.at_level(logging.WARNING, "hf_lowlabel"):
        push(new, "org/pets")
    repo = hub.repos["model", "org/pets"]
    there = repo.content()
    assert there["config.json"] == (new / "config.json").read_bytes() and there["figure.png"] == b"theirs"
    assert there["model.safetensors"] == (new / "model.safetensors").read_bytes()
    assert repo.history()[1] == "other" and "somebody else committed first" in caplog.text


def test_two_push_at_once(hub, runs):
    """Whoever comes last, the repository is one of the two models and both are in its history."""
    from concurrent.futures import ThreadPoolExecutor

    hub.add("model", "org/pets", {"config.json": b"{}"})
    with ThreadPoolExecutor(2) as pool:
        done = [pool.submit(push, run, "org/pets") for run in runs]
        commits = {future.result().commit for future in done}
    repo = hub.repos["model", "org/pets"]
    whole = [{k: v for k, v in listing(run).items() if k in repo.content()} for run in runs]
    there = repo.content()
    assert there["model.safetensors"] in [w["model.safetensors"] for w in whole] and len(commits) == 2
    winner = next(w for w in whole if w["model.safetensors"] == there["model.safetensors"])
    for name in ("config.json", "README.md", "split.json", "metrics.json", "curves.png"):
        assert there[name] == winner[name], name
    assert len(repo.history()) == 3


def test_somebody_else_commits_every_time(hub, runs):
    count = itertools.count()

    def interfere(method, path):
        if "/commit/" in path:
            hub.add("model", "org/pets", {"figure.png": str(next(count)).encode()}, "other")

    hub.add("model", "org/pets", {"config.json": b"{}"})
    hub.before = interfere
    with pytest.raises(PushError, match="Somebody else committed to org/pets first each time"):
        push(runs[0], "org/pets")
    assert set(hub.repos["model", "org/pets"].content()) == {"config.json", "figure.png"}


def test_the_hub_says_how_long_to_wait(monkeypatch):
    from huggingface_hub.errors import HfHubHTTPError

    from hf_lowlabel.hub import hub_errors as upload

    class Response:
        status_code, headers, request = 429, {"Retry-After": "7"}, None

    error = HfHubHTTPError("slow down", response=Response())
    assert upload.transient(error) and upload.seconds_to_wait(error, 0) == 7
    Response.headers = {"Retry-After": "4000"}
    assert upload.seconds_to_wait(error, 0) == upload.LONGEST_WAIT
    Response.headers = {}
    assert 1 <= upload.seconds_to_wait(error, 0) <= 1.25 and 8 <= upload.seconds_to_wait(error, 3) <= 10


@pytest.mark.parametrize("verb", ["push", "check"])
def test_without_a_network_it_is_said_soon(hub, runs, monkeypatch, verb):
    """One more attempt, for a name server that was busy, and not all of them."""
    import time

    from huggingface_hub import constants

    from hf_lowlabel.hub.upload import check_access

    waited = []
    monkeypatch.setattr(time, "sleep", waited.append)
    monkeypatch.setattr(constants, "ENDPOINT", "http://hub.invalid")
    if verb == "check":  # training goes on
        check_access("org/pets")
        assert not waited
        return
    with pytest.raises(PushError, match="The Hub cannot be reached .*Look whether .* connected.*Nothing is lost"):
        push(runs[0], "org/pets")
    assert len(waited) == 1


def test_a_network_that_goes_away_after_other_trouble(hub, runs, monkeypatch):
    """Also once more attempts were made than there are for no network."""
    import errno

    from huggingface_hub import HfApi

    seen = itertools.count()

    def fails(*_, **__):
        number = next(seen)
        raise ConnectionError("reset") from OSError(errno.ENETUNREACH if number > 2 else errno.ECONNRESET, "no way")

    monkeypatch.setattr(HfApi, "create_repo", fails)
    with pytest.raises(PushError, match="The Hub cannot be reached .*Nothing is lost"):
        push(runs[0], "org/pets")
    assert next(seen) == 4


def test_no_way_to_the_hub_is_told_from_a_hub_that_does_not_answer():
    import errno

    from hf_lowlabel.hub.hub_errors import unreachable

    def behind(cause):
        try:
            try:
                raise cause
            except OSError:
                raise ConnectionError("the client's own words") from cause
        except ConnectionError as error:
            return error

    assert unreachable(behind(OSError(errno.ENETUNREACH, "Network is unreachable")))
    assert not unreachable(behind(ConnectionResetError(errno.ECONNRESET, "Connection reset by peer")))
    assert not unreachable(behind(ConnectionRefusedError(errno.ECONNREFUSED, "Connection refused")))
