"""The labeling page with many images: seconds until the first picture, and of each label the time and the bytes.

    python recipes/benchmarks/page.py --images 10000

Pictures of 64 px are made in a folder as `select` writes it, and labeled with the keyboard in a headless Chromium
(playwright). A label is done when the page shows the next picture's name; its bytes are those of the request's body and
of the answer. --several: all classes of an image, with checkboxes.
"""

from __future__ import annotations

import argparse
import shutil
import tempfile
import threading
import time
from pathlib import Path

import numpy as np
from PIL import Image

from hf_lowlabel.labeling.answer_kinds import kind_of
from hf_lowlabel.labeling.labels import Asked
from hf_lowlabel.labeling.page import Session
from hf_lowlabel.labeling.server import PageServer
from hf_lowlabel.labeling.suggestions import write_suggestions
from hf_lowlabel.records import collect_hardware

NAMES = ["cat", "dog", "sky", "tree"]


def make(folder: Path, count: int, several: bool) -> None:
    (folder / "images").mkdir(parents=True)
    rng = np.random.default_rng(0)
    files = {f"{i:05d}_photo-{i}.jpg": f"set/photo-{i}.jpg" for i in range(count)}
    for i, name in enumerate(files):
        if i < 500:  # the rest are links to them
            Image.fromarray(rng.integers(0, 255, (64, 64, 3), np.uint8)).save(folder / "images" / name)
        else:
            (folder / "images" / name).hardlink_to(folder / "images" / f"{i % 500:05d}_photo-{i % 500}.jpg")
    task = Asked("photos", None, files, class_names=NAMES, task="multilabel" if several else "classification")
    kind_of(task.task).write(folder, task)
    said = {
        id: ((NAMES[i % 4], 0.5 + i % 50 / 100), "in doubt: cat (52%) or dog (48%)")
        for i, id in enumerate(files.values())
    }
    write_suggestions(folder, said)
    task.save(folder)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--images", type=int, default=10_000)
    parser.add_argument("--labels", type=int, default=60, help="labels that are given (default: 60)")
    parser.add_argument("--several", action="store_true")
    args = parser.parse_args()
    from playwright.sync_api import sync_playwright

    browser_file = next(filter(None, map(shutil.which, ("chromium", "chromium-browser", "google-chrome"))))
    with tempfile.TemporaryDirectory() as place, sync_playwright() as p:
        folder = Path(place) / "to_label"
        make(folder, args.images, args.several)
        begin = time.perf_counter()
        server = PageServer(Session(folder))
        print(f"folder opened in {time.perf_counter() - begin:.2f} s")
        threading.Thread(target=server.serve_forever, daemon=True).start()
        browser = p.chromium.launch(executable_path=browser_file, args=["--no-sandbox", "--disable-gpu"])
        page = browser.new_page()
        begin = time.perf_counter()
        page.goto(server.url, wait_until="commit")
        while not page.evaluate("(document.getElementById('image') || {}).naturalWidth"):
            pass
        seconds, size = time.perf_counter() - begin, len(page.evaluate("JSON.stringify(state)"))
        print(f"first picture after {seconds:.2f} s; the list of images has {size / 1e6:.1f} MB")
        sizes: list[int] = []
        page.on(
            "response",
            lambda r: sizes.append(len(r.body()) + len(r.request.post_data or "")) if "/label" in r.url else None,
        )
        took = page.evaluate(
            """async ([count, several]) => {
                const seen = [], id = document.getElementById("id");
                for (let k = 0; k < count; k++) {
                    const before = id.textContent, begin = performance.now();
                    for (const key of several ? [String(1 + (k + 1) % 4), "Enter"] : [String(1 + k % 4)])
                        document.dispatchEvent(new KeyboardEvent("keydown", {key, bubbles: true}));
                    while (id.textContent === before) await new Promise(done => setTimeout(done, 0));
                    seen.push(performance.now() - begin);
                }
                return seen;
            }""",
            [args.labels, args.several],
        )
        page.wait_for_timeout(300)
        late = np.percentile(took, 95)
        print(
            f"{len(took)} labels: {np.median(took):.0f} ms (median), {late:.0f} ms (95th percentile), "
            f"{max(took):.0f} ms at most; {max(sizes)} bytes at most"
        )
        print(collect_hardware())
        browser.close()
        server.shutdown()


if __name__ == "__main__":
    main()
