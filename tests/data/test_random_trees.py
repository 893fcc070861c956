"""A hundred random folders of what people have, read back and compared with what was built."""

import json
import os
import warnings

import numpy as np
import pytest
from PIL import Image

from hf_lowlabel import load_segmentation, load_source

SIZE = (12, 10)  # width, height in px, of pictures that stand upright
TURNS = {  # of an orientation tag, what turns an upright picture into the stored one
    1: None,
    3: Image.Transpose.ROTATE_180,
    6: Image.Transpose.ROTATE_90,
    8: Image.Transpose.ROTATE_270,
}
MODES = {"png": ("L", "RGB", "RGBA", "P", "I;16"), "jpg": ("L", "RGB"), "tif": ("L", "RGB", "I;16"), "webp": ("RGB",)}


class Tree:
    """One random folder: files, and what is expected of them."""

    def __init__(self, root, seed):
        self.root, self.rng = root, np.random.default_rng(seed)
        root.mkdir()

    def pick(self, *choices):
        return choices[self.rng.integers(len(choices))]

    def chance(self, p=0.5):
        return self.rng.random() < p

    def stem(self, k):
        return self.pick(f"{k}", f"img {k}", f"IMG_{k}", f"b.{k}", f"ü{k}", f"x{k}-y")

    def picture(self, folder, stem):
        """A gray picture whose upper half is darker, in a random format, turned by its tag: (path, its gray)."""
        ending = self.pick(*MODES)
        gray = int(self.rng.integers(60, 220))
        pixels = np.full(SIZE[::-1], gray, np.uint8)
        pixels[: SIZE[1] // 2] = gray // 2
        mode = self.pick(*MODES[ending])
        image = (
            Image.fromarray(pixels.astype(np.uint16) * 257) if mode == "I;16" else Image.fromarray(pixels).convert(mode)
        )
        tag = self.pick(*TURNS)
        exif = Image.Exif()
        exif[274] = tag
        if TURNS[tag] is not None:
            image = image.transpose(TURNS[tag])
        path = self.root / folder / f"{stem}.{self.pick(ending, ending.upper())}"
        path.parent.mkdir(parents=True, exist_ok=True)
        image.save(path, **({"exif": exif} if tag > 1 else {}), **({"lossless": True} if ending == "webp" else {}))
        return path.relative_to(self.root).as_posix(), gray

    def clutter(self):
        """What is in folders and no image of the data."""
        litter = {
            "@eaDir/a.png": b"x",
            ".hidden/b.png": b"x",
            "__MACOSX/c.jpg": b"x",
            "runs/old/run.json": b"{}",
            "runs/old/predictions.png": b"x",
            "Thumbs.db": b"x",
            "notes.txt": b"x",
            "film.mp4": b"x",
            "scan.dcm": b"x",
            ".DS_Store": b"x",
        }
        for name, content in litter.items():
            if self.chance(0.3) or name == "runs/old/run.json":
                if name.startswith("runs") and self.flat:
                    continue
                path = self.root / name
                path.parent.mkdir(parents=True, exist_ok=True)
                path.write_bytes(content)
        if self.chance(0.3):
            (self.root / os.fsdecode(b"caf\xe9.png")).write_bytes(b"x")

    flat = False

    # ---- classes ----------------------------------------------------------------------------------------------------
    def classes(self):
        """{split: {id: (class or None, gray)}} of a tree with labels by folder or by table."""
        splits = self.pick(
            {"train": ""}, {"train": "Train", "test": "Test"}, {"train": "training", "validation": "VAL"}
        )
        names = ["cat", "dog", "Öl"][: self.rng.integers(2, 4)]
        by_table = self.chance()
        self.flat = by_table
        found, rows, k = {}, [], 0
        for split, folder in splits.items():
            found[split] = {}
            for _ in range(self.rng.integers(4, 9)):
                label = self.pick(*names, None)
                place = self.pick("", "deep", "deep/er") if by_table else label or self.pick("unlabeled", "Unlabelled")
                path, gray = self.picture(f"{folder}/{place}".strip("/") or ".", self.stem(k))
                id = path.removeprefix(f"{folder}/") if folder else path
                found[split][id] = (label, gray)
                rows.append((split, path, id, label))
                k += 1
            if not by_table:  # each split has each class, so that all have the same
                for label in names:
                    path, gray = self.picture(f"{folder}/{label}".strip("/"), f"one{k}")
                    found[split][path.removeprefix(f"{folder}/") if folder else path] = (label, gray)
        if by_table:
            self.table(rows, splits)
        return found, names

    def table(self, rows, splits):
        """One table beside the splits, or one of each."""
        whole = self.chance() or list(splits.values()) == [""]
        for split, folder in [("", "")] if whole else splits.items():
            mine = [row for row in rows if whole or row[0] == split]
            prefix = self.pick("", "./", "/home/me/data/") if whole else ""
            cells = [(prefix + (path if whole else id), label) for _, path, id, label in mine]
            name = "metadata" if whole else self.pick("metadata", "labels")
            head = self.pick(("file_name", "label"), ("filename", "class"), ("Image", "Category"))
            self.write(self.root / folder, name, head, cells)

    def write(self, folder, name, head, cells):
        kind, nothing = (
            self.pick("csv", "semicolon", "tsv", "jsonl", "json", "parquet"),
            self.pick("", "NaN", "null", "NA"),
        )
        objects = [dict(zip(head, (file, label))) for file, label in cells]
        if kind == "parquet" and name == "metadata":
            import pandas as pd

            pd.DataFrame(objects).to_parquet(folder / f"{name}.parquet")
        elif kind == "jsonl":
            lines = "\n".join(json.dumps(row, ensure_ascii=self.chance()) for row in objects)
            (folder / f"{name}.jsonl").write_text(lines, encoding="utf-8")
        elif kind == "json":
            (folder / f"{name}.json").write_text(json.dumps(objects), encoding="utf-8")
        else:
            separator = {"semicolon": ";", "tsv": "\t"}.get(kind, ",")
            lines = [separator.join(head), *(f'"{file}"{separator}{label or nothing}' for file, label in cells)]
            spelled = self.pick(name, name.capitalize(), name.upper())
            file = folder / f"{spelled}.{'tsv' if kind == 'tsv' else 'csv'}"
            file.write_text(self.pick("\n", "\r\n").join(lines) + "\n", encoding=self.pick("utf-8", "utf-8-sig"))

    # ---- masks ------------------------------------------------------------------------------------------------------
    def masks(self):
        """({id: mask of 0 and 1 or None}, how they are read)."""
        layout = self.pick("folders", "beside", "coco", "labelme", "yolo")
        images = {"folders": self.pick("images", "Img"), "beside": "photos", "labelme": "images"}.get(layout, "images")
        kind = self.pick("index", "binary", "alpha", "instances")
        place, out, drawn = self.pick("masks", "Labels", "gt"), {}, {}
        for k in range(self.rng.integers(4, 8)):
            path, _ = self.picture(images, self.stem(k))
            x0, y0 = int(self.rng.integers(0, 6)), int(self.rng.integers(0, 5))
            box = (x0, y0, x0 + int(self.rng.integers(2, 6)), y0 + int(self.rng.integers(2, 5)))
            mask = np.zeros(SIZE[::-1], np.uint8)
            mask[box[1] : box[3], box[0] : box[2]] = 1
            id = path if layout == "beside" else path.removeprefix(f"{images}/")
            out[id] = mask if k < 2 or self.chance(0.7) else None
            if out[id] is None:
                continue
            stem = path.rsplit("/", 1)[-1].rsplit(".", 1)[0]
            if layout in ("folders", "beside"):
                folder = self.root / (place if layout == "folders" else images)
                folder.mkdir(exist_ok=True)
                ending = "_mask" if layout == "beside" else self.pick("", "_mask")
                self.mask_picture(mask, kind).save(folder / f"{stem}{ending}.png")
            drawn[path] = box
        if layout in ("folders", "beside"):
            given = {"index": dict(classes=["a", "b"]), "instances": dict(instances=True)}
            return out, given.get(kind, dict(mask_format="binary"))
        getattr(self, layout)(drawn)
        return out, {}

    def mask_picture(self, mask, kind):
        if kind == "alpha":
            shown = int(self.pick(0, 255))
            return Image.fromarray(np.dstack([np.full_like(mask, shown)] * 3 + [mask * 255]))
        if kind == "instances":
            return Image.fromarray(mask.astype(np.uint16) * int(self.rng.integers(1, 900)))
        return Image.fromarray(mask * 255 if kind == "binary" else mask)

    def coco(self, drawn):
        content = {"images": [], "annotations": [], "categories": [{"id": 4, "name": "thing"}]}
        for k, (path, (x0, y0, x1, y1)) in enumerate(drawn.items()):
            name = path if self.chance() else path.rsplit("/", 1)[-1]
            content["images"].append({"id": k, "file_name": name, "width": SIZE[0], "height": SIZE[1]})
            outline = [[x0, y0, x1, y0, x1, y1, x0, y1]]
            content["annotations"].append({"id": k, "image_id": k, "category_id": 4, "segmentation": outline})
        file = self.root / self.pick("annotations.json", "annotations/instances.json")
        file.parent.mkdir(exist_ok=True)
        file.write_text(json.dumps(content), encoding="utf-8")

    def labelme(self, drawn):
        for path, (x0, y0, x1, y1) in drawn.items():
            points = [[x0, y0], [x1, y0], [x1, y1], [x0, y1]]
            shape = {"label": "thing", "points": points, "shape_type": "polygon"}
            content = dict(shapes=[shape], imagePath=path.rsplit("/", 1)[-1], imageWidth=SIZE[0], imageHeight=SIZE[1])
            (self.root / path).with_suffix(".json").write_text(json.dumps(content), encoding="utf-8")

    def yolo(self, drawn):
        (self.root / "data.yaml").write_text("names: [thing]\n")
        (self.root / "labels").mkdir()
        for path, (x0, y0, x1, y1) in drawn.items():
            w, h = SIZE
            numbers = [x0 / w, y0 / h, x1 / w, y0 / h, x1 / w, y1 / h, x0 / w, y1 / h]
            text = "0 " + " ".join(f"{v:.6f}" for v in numbers) + "\n"
            (self.root / "labels" / path.rsplit("/", 1)[-1]).with_suffix(".txt").write_text(text)


def upright(source, i, gray):
    """Whether picture i stands upright, its darker half above."""
    pixels = np.asarray(source.rgb(i)).astype(int)[..., 0]
    half = SIZE[1] // 2
    assert source.size(i) == SIZE and pixels.shape == SIZE[::-1], source.ids[i]
    assert abs(pixels[half + 1 :].mean() - gray) < 12 and abs(pixels[: half - 1].mean() - gray // 2) < 12, source.ids[i]


@pytest.mark.parametrize("first", range(0, 60, 20))
def test_classes_are_read_as_they_were_built(tmp_path, first):
    for seed in range(first, first + 20):
        tree = Tree(tmp_path / str(seed), seed)
        expected, names = tree.classes()
        tree.clutter()
        for split, images in expected.items():
            with warnings.catch_warnings():
                warnings.simplefilter("ignore")
                source = load_source(tree.root, split=split)
            found = {id: source.class_names[k] if k >= 0 else None for id, k in zip(source.ids, source.labels.tolist())}
            assert found == {id: label for id, (label, _) in images.items()}, (seed, split)
            assert set(source.class_names) <= set(names)
            for i, id in enumerate(source.ids):
                upright(source, i, images[id][1])


@pytest.mark.parametrize("first", range(1000, 1040, 20))
def test_masks_are_read_as_they_were_built(tmp_path, first):
    for seed in range(first, first + 20):
        tree = Tree(tmp_path / str(seed), seed)
        expected, given = tree.masks()
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            source = load_segmentation(tree.root, **given)
        assert dict(zip(source.ids, source.has_target.tolist())) == {i: m is not None for i, m in expected.items()}, (
            seed
        )
        for i in np.flatnonzero(source.has_target):
            assert (source.mask(i, SIZE) == expected[source.ids[i]]).all(), (seed, source.ids[i])
