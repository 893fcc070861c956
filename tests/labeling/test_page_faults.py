"""The labeling page under attack: odd requests, full disks, links and names that lead out of its folder."""

import contextlib
import json
import resource
import socket
import socketserver
import urllib.error
import urllib.request

import pytest
from PIL import Image

from hf_lowlabel.data.files.table_files import read_table
from hf_lowlabel.data.labels.labels import RULES
from hf_lowlabel.errors import UserError
from hf_lowlabel.labeling import page, server as pages_server
from hf_lowlabel.labeling.answer_kinds import kind_of
from hf_lowlabel.labeling.labels import Asked, Labels, read_labels, write_labels
from hf_lowlabel.labeling.mask_page import MaskSession

from .test_page import ask, folder, serving, stored  # noqa: F401


def raw(server, text: str, cookie: str = "") -> bytes:
    """What is answered to these bytes; with the cookie of the page, or this one."""
    text = text.replace("\n\n", f"\nCookie: {cookie or f'{server.cookie}={server.token}'}\n\n", 1)
    with socket.create_connection(server.server_address, timeout=5) as connection:
        connection.sendall(text.replace("\n", "\r\n").replace("PORT", str(server.server_port)).encode())
        found = b""
        while more := connection.recv(4096):
            found += more
    return found


def post(length, body="", **headers):
    more = "".join(f"{name}: {value}\n" for name, value in headers.items())
    start = "POST /label HTTP/1.1\nHost: 127.0.0.1:PORT\nContent-Type: application/json\n"
    return f"{start}{more}Content-Length: {length}\n\n{body}"


@pytest.mark.parametrize("length", [-1, -99999, 10**12, "x", 1 << 17])
def test_a_length_that_is_none_is_answered_at_once(length, folder):  # noqa: F811
    with serving(folder) as server:
        assert b" 400 " in raw(server, post(length)).split(b"\r\n")[0]


def test_another_user_of_the_machine_sees_and_changes_nothing(folder):  # noqa: F811
    body = '{"id": "set/photo 00.png", "label": "red"}'
    upload = "POST /mask?file=photo%2000.png HTTP/1.1\nHost: 127.0.0.1:PORT\nContent-Type: application/octet-stream\n"
    asked = [f"GET {path} HTTP/1.1\nHost: 127.0.0.1:PORT\n\n" for path in ("/", "/state", "/images/photo%2001.png")]
    asked += [post(len(body), body), f"{upload}Content-Length: 0\n\n", asked[1].replace("/state", "/mask_page.js")]
    with serving(folder) as labels, serving(folder, MaskSession) as masks:
        for server, other in ((labels, masks), (masks, labels)):
            strange = [f"{server.cookie}=", f"{server.cookie}=\u00e9", f"{server.cookie}=x{server.token}", "=;;a=b"]
            for cookie in (*strange, f"{other.cookie}={server.token}", f"{server.cookie}={other.token}"):
                for text in asked:
                    found = raw(server, text, cookie)
                    assert b" 403 " in found.split(b"\r\n")[0] and found.endswith(b"address that the command printed.")
                    assert b"Set-Cookie" not in found
        for wrong in ("", other.token, "%ff", "\u00e9"):
            found = raw(server, f"GET /?token={wrong} HTTP/1.1\nHost: 127.0.0.1:PORT\n\n", "a=b")
            assert b" 403 " in found.split(b"\r\n")[0]
    assert stored(folder) == {}


def test_the_address_that_is_printed_brings_the_cookie(folder):  # noqa: F811
    with serving(folder) as server, serving(folder) as other:
        assert server.token != other.token and len(server.token) > 40
        first = raw(server, f"GET /?{server.url.partition('?')[2]} HTTP/1.1\nHost: 127.0.0.1:PORT\n\n", "a=b")
        line = next(line for line in first.decode().splitlines() if line.startswith("Set-Cookie: "))
        cookie, *rules = line.removeprefix("Set-Cookie: ").split("; ")
        assert " 200 " in first.decode().splitlines()[0] and {*rules} == {"HttpOnly", "SameSite=Strict", "Path=/"}
        state = "GET /state HTTP/1.1\nHost: 127.0.0.1:PORT\n\n"  # beside the cookies of other pages of this machine
        for cookies in (cookie, f"odd [name]=1; {cookie}", f"{other.cookie}={other.token}; {cookie}; x"):
            assert b" 200 " in raw(server, state, cookies).split(b"\r\n")[0]
        assert b"Set-Cookie" not in raw(server, state)


def test_connections_that_say_nothing_are_closed(folder, monkeypatch):  # noqa: F811
    monkeypatch.setattr(pages_server.Handler, "timeout", 1)
    with serving(folder) as server:
        idle = [socket.create_connection(("127.0.0.1", server.server_port), timeout=60) for _ in range(50)]
        assert server.request_queue_size > len(idle)  # else the last ones come again after a second
        assert ask(server, "state")["images"]  # others are served meanwhile
        for connection in idle:
            assert connection.recv(10) == b""
            connection.close()


def test_no_other_site_may_ask(folder):  # noqa: F811
    with serving(folder) as server:
        body = '{"id": "set/photo 00.png", "label": "red"}'
        asked = post(len(body), body, Origin="http://evil.example")
        assert b" 403 " in raw(server, asked).split(b"\r\n")[0] and stored(folder) == {}
        rebound = asked.replace("Host: 127.0.0.1:PORT", "Host: evil.example:PORT")
        assert b" 403 " in raw(server, rebound).split(b"\r\n")[0]
        answer = raw(server, "GET / HTTP/1.1\nHost: 127.0.0.1:PORT\n\n")
        assert b"frame-ancestors 'none'" in answer
        own = post(len(body), body, Origin=f"http://127.0.0.1:{server.server_port}")
        assert b" 200 " in raw(server, own).split(b"\r\n")[0] and stored(folder) == {"set/photo 00.png": "red"}


NO_TEXT = ["two\nlines", "a\0b", "\ud800", "esc\x1b[2J", "a\u2028b", "a\u2029b", "a\x85b", "a\u202egnp", "a\u2067b"]


@pytest.mark.parametrize("name", NO_TEXT)
def test_a_class_is_text_on_one_line(name, folder):  # noqa: F811
    with serving(folder) as server:
        with pytest.raises(urllib.error.HTTPError) as error:
            ask(server, "class", {"name": name})
        assert "control characters" in json.load(error.value)["error"]
    assert (folder / "classes.txt").read_text() == "red\ngreen\n"


@pytest.mark.parametrize(
    "given, named",
    [
        ("\u0645\u06cc\u200c\u062e\u0648\u0627\u0647\u0645", None),  # Persian, with a joiner that is none
        ("\u0915\u094d\u200d\u0937", None),
        ("\U0001f469\u200d\U0001f52c", None),
        ("\u3000\u9ed2\u3000\u732b\u00a0", "\u9ed2 \u732b"),
        ("golden\u202fretriever", "golden retriever"),
        ("private \ue000", None),
    ],
)
def test_names_of_every_writing_come_back_as_they_were_given(given, named, folder):  # noqa: F811
    named = named or given
    session = page.Session(folder)
    first, second, *_ = session.task.files.values()
    assert session.new_class(given)["classes"][-1] == named
    session.label(first, named)
    session.label(second, "red")
    again = page.Session(folder)
    assert again.classes == ["red", "green", named] and stored(folder) == {first: named, second: "red"}
    with pytest.raises(UserError, match="exists"):
        again.new_class(named.upper().replace(" ", "\u2003"))
    assert again.rename("red", given)["classes"] == ["green", named]  # it takes the labels of red in
    assert stored(folder) == {first: named, second: named}
    assert f'value="{named}"' in xml_of(named)


def xml_of(name: str) -> str:
    return kind_of("classification").interface([name])


@pytest.mark.parametrize("name", ["\u200b", "\ufeff\u200d"])
def test_a_name_that_nobody_sees_is_none(name, folder):  # noqa: F811
    with pytest.raises(UserError, match="no letter that is seen"):
        page.Session(folder).new_class(name)
    assert (folder / "classes.txt").read_text() == "red\ngreen\n"


@pytest.mark.parametrize("key", ["../secret.txt", "a/../../secret.txt", "/etc/passwd", "..", "x\\..\\y", "a\nb"])
def test_names_that_lead_out_of_the_folder_are_refused(key, folder):  # noqa: F811
    content = json.loads((folder / "selection.json").read_text())
    content["files"] = {key: "set/1"}
    (folder / "selection.json").write_text(json.dumps(content))
    with pytest.raises(UserError, match="no file of images/"):
        Asked.load(folder)


@pytest.mark.parametrize("made", [page.Session, MaskSession])
def test_a_link_out_of_the_folder_is_not_followed(made, folder):  # noqa: F811
    (folder / "secret.txt").write_text("secret")
    (folder / "images" / "photo 01.png").unlink()
    (folder / "images" / "photo 01.png").symlink_to(folder / "secret.txt")
    with serving(folder, made) as server:
        (folder / "images" / "later.png").symlink_to(folder / "images" / "photo 02.png")
        for name in ("photo%2001.png", "later.png"):
            with pytest.raises(urllib.error.HTTPError) as error:
                ask(server, f"images/{name}")
            assert error.value.code == 404


@pytest.mark.parametrize("made", [page.Session, MaskSession])
def test_images_that_are_links_are_shown(made, folder):  # noqa: F811
    """As git-annex and DVC keep them: under another name, elsewhere."""
    store, names = folder.parent / f"{folder.name} store", sorted(p.name for p in (folder / "images").iterdir())
    store.mkdir()
    for k, (name, kind) in enumerate(zip(names, ("png", "jpeg", "gif", "webp", "bmp"), strict=True)):
        picture, there = folder / "images" / name, store / f"md5-{k}"
        Image.open(picture).save(there, kind)
        picture.unlink()
        picture.symlink_to(there)
    with serving(folder, made) as server:
        for k, name in enumerate(names):
            assert ask(server, f"images/{urllib.request.quote(name)}") == (store / f"md5-{k}").read_bytes()


@pytest.mark.parametrize("fails", ["write_labels", "fsync"])
def test_a_change_that_failed_is_not_written_later(fails, folder, monkeypatch):  # noqa: F811
    def full(*_):
        raise OSError(28, "No space left on device")

    with serving(folder) as server:
        first, second, *_ = [image["id"] for image in ask(server, "state")["images"]]
        with monkeypatch.context() as patch:
            patch.setattr(*((page, fails, full) if fails == "write_labels" else (page.os, fails, full)))
            with pytest.raises(urllib.error.HTTPError) as error:
                ask(server, "label", {"id": first, "label": "red"})
            assert "No space left" in json.load(error.value)["error"]
        ask(server, "label", {"id": second, "label": "green"})
        assert stored(folder) == {second: "green"}
        assert not ask(server, "undo", {})["can_undo"] and stored(folder) == {}


@pytest.mark.parametrize("room", [0, 10])
def test_a_disk_that_takes_a_part_of_a_line(room, folder):  # noqa: F811
    """Nothing of it stays, so that later steps can be undone after a restart too."""
    before = page.Session(folder)
    first, second, third, *_ = before.task.files.values()
    before.label(first, "red")
    limits, size = resource.getrlimit(resource.RLIMIT_FSIZE), before.history.stat().st_size
    try:
        resource.setrlimit(resource.RLIMIT_FSIZE, (size + room, limits[1]))
        with pytest.raises(OSError, match="too large"):
            before.label(second, "red")
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, limits)
    assert before.history.stat().st_size == size and stored(folder) == {first: "red"}
    with open(before.history, "a") as history:
        history.write('{"id": "cut sho')  # by a kill
    page.Session(folder).label(third, "green")
    after = page.Session(folder)
    assert len(after.steps) == 2 and stored(folder) == {first: "red", third: "green"}
    after.undo(), after.undo()
    assert stored(folder) == {}


def test_a_renaming_that_failed_leaves_labels_and_classes(folder, monkeypatch):  # noqa: F811
    session = page.Session(folder)
    first = next(iter(session.task.files.values()))
    session.label(first, "red")
    files = {p: p.read_bytes() for p in (folder / "labels.csv", folder / "classes.txt", folder / "history.jsonl")}

    def full(*_):
        raise OSError(28, "No space left on device")

    for fails in ("write_text", "write_labels"):
        with monkeypatch.context() as patch, pytest.raises(OSError, match="No space left"):
            patch.setattr(page, fails, full)
            session.rename("red", "crimson")
        assert {p: p.read_bytes() for p in files} == files and not list(folder.glob(".*part*"))
    session.rename("red", "crimson")
    assert stored(folder) == {first: "crimson"} and "crimson" in (folder / "classes.txt").read_text()


def test_a_kill_between_the_two_files_loses_no_label(folder, monkeypatch):  # noqa: F811
    """The history knows a step that labels.csv does not: its undo changes nothing."""
    with serving(folder) as server:
        first = ask(server, "state")["images"][0]["id"]
        ask(server, "label", {"id": first, "label": "red"})
    with open(folder / "history.jsonl", "a") as history:
        step = {
            "id": first,
            "before": {"label": "red", "skipped": False},
            "after": {"label": "green", "skipped": False},
        }
        history.write(json.dumps(step) + "\n" + '["no step"]\n{"undo": 3\n')
    with serving(folder) as server:
        assert stored(folder) == {first: "red"}
        ask(server, "undo", {})
        assert stored(folder) == {first: "red"}
        ask(server, "undo", {})
        assert stored(folder) == {}


def test_cells_are_no_formulas(tmp_path):
    """What a spreadsheet would run begins with an apostrophe in the file, and is read back as it was."""
    ids = ["=HYPERLINK(1)", "+1", "-2", "@x", "plain", "'quoted"]
    task = Asked("photos", None, {f"{k}.png": id for k, id in enumerate(ids)})
    write_labels(tmp_path / "labels.csv", task, Labels({id: f"={k}" for k, id in enumerate(ids)}))
    text = (tmp_path / "labels.csv").read_text(encoding="utf-8-sig")
    assert not any(cell.startswith(("=", "+", "-", "@")) for line in text.splitlines() for cell in line.split(","))
    found = read_labels(tmp_path / "labels.csv", task, new_classes=True)
    assert found.labels == {id: f"={k}" for k, id in enumerate(ids)}


@pytest.mark.parametrize("name", ["=x", "'=x", "'-5", "''@a", "'quoted", "''", "-", "'"])
def test_cells_that_begin_with_an_apostrophe_come_back_as_they_were(name, tmp_path):
    """As an id, as a class, and as the name of a column of a person's own."""
    task = Asked("photos", None, {"1.png": name, "2.png": "other"})
    given = Labels({name: name, "other": "plain"}, more={f"{name} of mine": {name: name}})
    for _ in range(2):  # what is read is written again
        write_labels(tmp_path / "labels.csv", task, given)
        given = read_labels(tmp_path / "labels.csv", task, classes=[name, "plain"], rules=RULES.knowing([name]))
        assert given.labels == {name: name, "other": "plain"} and given.more == {f"{name} of mine": {name: name}}


ENDS = "\u2028\u2029\x85\x1c\x0b\x0c"  # of lines, for str.splitlines


def test_undo_knows_images_whose_ids_hold_ends_of_lines(folder):  # noqa: F811
    names = sorted(path.name for path in (folder / "images").iterdir())
    task = Asked("photos", None, {name: f"a{end}b.png" for name, end in zip(names, ENDS, strict=False)})
    task.class_names = ["red", f"odd{ENDS}name"]
    kind_of(task.task).write(folder, task)
    task.save(folder)
    ids = list(task.files.values())
    session = page.Session(folder)
    assert session.classes == task.class_names
    for id in ids:
        session.label(id, task.class_names[1])
    (folder / "labels.csv").unlink()
    again = page.Session(folder)
    assert again.labels.labels == dict.fromkeys(ids, task.class_names[1])
    for _ in ids:
        again.undo()
    assert again.labels.labels == {} and not again.steps


def test_json_lines_end_with_a_line_feed_alone(tmp_path):
    rows = [{"file_name": f"a{end}b.png", "label": "red"} for end in ENDS]
    text = "\r\n".join(json.dumps(row, ensure_ascii=False) for row in rows)
    (tmp_path / "rows.jsonl").write_text(text + "\n\n", encoding="utf-8", newline="")
    assert [row for _, row in read_table(tmp_path / "rows.jsonl")] == rows


def test_tables_of_predictions_are_no_formulas(tmp_path):
    from hf_lowlabel.table_writer import write_table

    rows = [{"file": "=cmd|x.png", "class": "@evil", "-share": 0.5, "confidence": -1.0}, dict.fromkeys("abcd")]
    write_table(tmp_path / "p.csv", rows[:1])
    assert (tmp_path / "p.csv").read_text() == "file,class,'-share,confidence\n'=cmd|x.png,'@evil,0.5,-1.0\n"
    write_table(tmp_path / "p.parquet", [{"file": "bytes \udcff.png"}])  # a name from an old archive


@pytest.mark.parametrize("of", [page.Session, MaskSession])
@pytest.mark.parametrize("signal", [KeyboardInterrupt(), SystemExit(143)])
def test_a_page_that_is_ended_says_what_there_is(of, signal, folder, monkeypatch, capsys):  # noqa: F811
    """By Ctrl-C, which a command goes on from, and by SIGTERM, whose exit code stays."""
    session = of(folder)

    def ended(server):
        raise signal

    monkeypatch.setattr(pages_server.PageServer, "serve_forever", ended)
    with pytest.raises(SystemExit, match="143") if isinstance(signal, SystemExit) else contextlib.nullcontext():
        pages_server.serve(session, open_browser=False)
    assert capsys.readouterr().out.splitlines()[-1] == session.parting()


def test_a_folder_that_is_gone_is_said_in_the_browser_and_at_the_end(folder, monkeypatch, capsys):  # noqa: F811
    """The sibling of a folder of masks that cannot be shown any more: selection.json was moved elsewhere."""
    made = page.Session(folder)
    made.label(next(iter(made.task.files.values())), "red")
    with serving(folder) as server:
        (folder / "selection.json").rename(folder / "elsewhere.json")
        with monkeypatch.context() as patch:
            patch.setattr(page.Session, "next_command", lambda self: Asked.load(self.folder) and "")
            with pytest.raises(urllib.error.HTTPError) as error:
                ask(server, "state")
            assert error.value.code == 400 and "selection.json" in json.load(error.value)["error"]
            patch.setattr(
                pages_server.PageServer, "serve_forever", lambda _: (_ for _ in ()).throw(KeyboardInterrupt())
            )
            pages_server.serve(made, open_browser=False)
    assert f"There is no {folder / 'selection.json'}" in capsys.readouterr().out.splitlines()[-1]


def test_classes_that_were_written_elsewhere_stay(folder):  # noqa: F811
    """In an editor, while the page is open: whatever the page writes next."""
    session, file = page.Session(folder), folder / "classes.txt"
    session.label(next(iter(session.task.files.values())), "red")
    file.write_text("red\nblue\ngreen\n")
    assert session.new_class("pink")["classes"] == ["red", "blue", "green", "pink"]
    file.write_text(file.read_text() + "gray\n")
    session.rename("red", "crimson")
    assert file.read_text() == "crimson\nblue\ngreen\npink\ngray\n"
    file.write_text(file.read_text() + "white\n")
    session.undo()
    assert file.read_text() == "red\nblue\ngreen\npink\ngray\nwhite\n"
    with pytest.raises(UserError, match="The class 'white' exists"):
        session.new_class("White")


def test_big_answers_are_sent_in_blocks(folder, monkeypatch):  # noqa: F811
    """Each of which has the whole time that a connection may say nothing: a slow line gets all of an image."""
    content = bytes(range(256)) * 1000
    (folder / "images" / "photo 01.png").write_bytes(content)
    sent, write = [], socketserver._SocketWriter.write

    def noted(self, block):
        sent.append(len(block))
        return write(self, block)

    monkeypatch.setattr(socketserver._SocketWriter, "write", noted)
    with serving(folder) as server:
        assert ask(server, "images/photo%2001.png") == content
    assert max(sent) == 1 << 16 and sum(sent) > len(content)


FAILURES = [
    MemoryError(),
    RuntimeError("CUDA out of memory. Tried to\nmore lines"),
    ValueError(),
    KeyError("x"),
    OSError(),
]


@pytest.mark.parametrize("error", FAILURES, ids=lambda error: type(error).__name__)
def test_what_nobody_foresaw_is_named_and_the_page_goes_on(error, folder, monkeypatch, caplog, capfd):  # noqa: F811
    def fails(*_, **__):
        raise error

    name = "CUDA out of memory. Tried to" if "CUDA" in str(error) else type(error).__name__
    with serving(folder) as server:
        id = ask(server, "state")["images"][0]["id"]
        with monkeypatch.context() as patch:
            for action in ("state", "get", "label"):
                patch.setattr(page.Session, action, fails)
            for path, body in (("state", None), ("images/1.png", None), ("label", {"id": id, "label": "red"})):
                with pytest.raises(urllib.error.HTTPError) as refused:
                    ask(server, path, body)
                said = json.load(refused.value)["error"]
                assert name in said and "\n" not in said and refused.value.code in (400, 500)
        assert ask(server, "label", {"id": id, "label": "red"})["label"] == "red"
    assert "Traceback" not in capfd.readouterr().err
    assert all("\n" not in record.getMessage() and server.token not in record.getMessage() for record in caplog.records)


def test_an_address_that_is_none_and_a_connection_that_breaks_leave_no_traceback(folder, caplog, capfd):  # noqa: F811
    with serving(folder) as server:
        assert b" 500 " in raw(server, "GET http://[ HTTP/1.1\nHost: 127.0.0.1:PORT\n\n").split(b"\r\n")[0]
        for error in (ConnectionResetError(), OSError("odd")):
            try:
                raise error
            except OSError:
                server.handle_error(None, None)
        assert ask(server, "state")["images"]
    assert "Traceback" not in capfd.readouterr().err
    assert [record.getMessage() for record in caplog.records if "odd" in record.getMessage()] and len(
        caplog.records
    ) == 2


def test_a_port_that_is_forwarded_under_another_number_is_told_what_to_do(folder):  # noqa: F811
    body = '{"id": "set/photo 00.png", "label": "red"}'
    with serving(folder) as server:
        port = server.server_port
        for text in ("GET / HTTP/1.1\nHost: 127.0.0.1:PORT\n\n", post(len(body), body)):
            for host in ("127.0.0.1:9999", "localhost:80", "localhost"):
                found = raw(server, text.replace("127.0.0.1:PORT", host))
                assert b" 403 " in found.split(b"\r\n")[0] and f"ssh -L {port}:127.0.0.1:{port} HOST".encode() in found
            found = raw(server, text.replace("127.0.0.1:PORT", "evil.example:9999"))
            assert b" 403 " in found.split(b"\r\n")[0] and b"ssh" not in found
    assert stored(folder) == {}


def test_the_usual_port_is_left_out_by_browsers(folder):  # noqa: F811
    body = '{"id": "set/photo 00.png", "label": "red"}'
    with serving(folder) as server:
        server.server_port = 80
        for host in ("127.0.0.1", "localhost", "localhost:80"):
            asked = post(len(body), body, Origin=f"http://{host}").replace("127.0.0.1:PORT", host)
            assert b" 200 " in raw(server, asked).split(b"\r\n")[0]
        asked = post(len(body), body, Origin="http://evil.example").replace("127.0.0.1:PORT", "127.0.0.1")
        assert b" 403 " in raw(server, asked).split(b"\r\n")[0]


def test_what_xml_has_no_word_for_is_marked_in_the_interface():
    assert 'value="a\ufffd&lt;\ufffd\u200cb"' in xml_of("a\x1b<\uffff\u200cb")
