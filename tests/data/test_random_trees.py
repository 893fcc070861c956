"""A hundred random folders of what people have, read back and compared with what was built."""

import importlib.util
import json
import os
import unicodedata
import warnings
from dataclasses import replace
from urllib.parse import quote

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
MODES = {
    "png": ("L", "RGB", "RGBA", "LA", "P", "I;16"),
    "jpg": ("L", "RGB", "CMYK"),
    "tif": ("L", "RGB", "I;16", "F", "P"),
    "webp": ("RGB", "RGBA"),
    "bmp": ("L", "RGB"),
    "jpeg": ("RGB",),
}


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
        return self.pick(
            f"{k}", f"img {k}", f"IMG_{k}", f"b.{k}", f"ü{k}", f"u\u0308{k}", f"x{k}-y", f"a,{k}", f"100%{k}"
        )

    def picture(self, folder, stem):
        """A gray picture whose upper half is darker, in a random format, turned by its tag: (path, its gray)."""
        ending = self.pick(*MODES)
        gray = int(self.rng.integers(60, 220))
        pixels = np.full(SIZE[::-1], gray, np.uint8)
        pixels[: SIZE[1] // 2] = gray // 2
        mode = self.pick(*MODES[ending])
        kind = {"I;16": np.uint16, "F": np.float32}.get(mode)
        image = Image.fromarray(pixels.astype(kind) * 257) if kind else Image.fromarray(pixels).convert(mode)
        tag = self.pick(*TURNS) if ending != "bmp" else 1  # which has no tags
        exif = Image.Exif()
        exif[274] = tag
        if TURNS[tag] is not None:
            image = image.transpose(TURNS[tag])
        path = self.root / folder / f"{stem}.{self.pick(ending, ending.upper())}"
        path.parent.mkdir(parents=True, exist_ok=True)
        image.save(path, **({"exif": exif} if tag > 1 else {}), **({"lossless": True} if ending == "webp" else {}))
        return unicodedata.normalize("NFC", path.relative_to(self.root).as_posix()), gray

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
            "more.zip": b"PK",
            "old.csv.gz": b"x",
            "._0.png": b"x",
            "LICENSE": b"words",
            "empty/notes.txt": b"x",
        }
        for name, content in litter.items():
            if self.chance(0.3) or name == "runs/old/run.json":
                if name.startswith(("runs", "empty")) and self.flat:
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
            {"train": ""}, {"train": "Train", "test": "Test"}, {"train": "training", "validation": "VAL"}, "column"
        )
        names = ["cat", "dog", "Öl"][: self.rng.integers(2, 4)]
        by_table = self.chance() or splits == "column"
        self.flat, self.column = by_table, splits == "column"  # of the table, that says which split an image is of
        splits = {"train": "", "test": ""} if self.column else splits
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
        whole = self.chance() or not any(splits.values())
        for split, folder in [("", "")] if whole else splits.items():
            mine = [row for row in rows if whole or row[0] == split]
            prefix = self.pick("", "./", "/home/me/data/", "C:\\me\\", "https://there.org/data/") if whole else ""
            spelled = self.pick(str, str, str.upper) if whole else str
            written = quote if prefix.startswith("https") else spelled
            cells = [(prefix + written(path if whole else id), label, of) for of, path, id, label in mine]
            name = "metadata" if whole else self.pick("metadata", "labels")
            head = self.pick(("file_name", "label"), ("filename", "class"), ("Image", "Category"))
            if not self.column:
                cells = [row[:2] for row in cells]
            elif cells:
                head = (*head, self.pick("split", "Subset"))
            self.write(self.root / folder, name, head, cells)

    def write(self, folder, name, head, cells):
        kinds = ["csv", "semicolon", "tsv", "bar", "jsonl", "json", "parquet", "columns", "xlsx"]
        kind = self.pick(*kinds[: len(kinds) - (importlib.util.find_spec("openpyxl") is None)])
        kind = "csv" if kind == "columns" and len(head) > 2 else kind
        nothing = self.pick("", "NaN", "null", "NA", "#N/A")
        objects = [dict(zip(head, row)) for row in cells]
        if kind == "parquet" and name == "metadata":
            import pandas as pd

            pd.DataFrame(objects).to_parquet(folder / f"{name}.parquet")
        elif kind == "jsonl":
            lines = "\n".join(json.dumps(row, ensure_ascii=self.chance()) for row in objects)
            (folder / f"{name}.jsonl").write_text(lines, encoding="utf-8")
        elif kind == "json":
            (folder / f"{name}.json").write_text(json.dumps(objects), encoding="utf-8")
        elif kind == "xlsx":
            self.workbook(folder / f"{name}.xlsx", head, cells)
        elif kind == "columns":  # one for each class
            names = sorted({label for _, label in cells if label}) or ["a", "b"]
            names += ["none of these"] if len(names) < 2 else []
            pd = importlib.import_module("pandas")
            table = {n: [None if label is None else int(label == n) for _, label in cells] for n in names}
            pd.DataFrame({"image": [file for file, _ in cells], **table}).to_csv(folder / f"{name}.csv", index=False)
        else:
            separator = {"semicolon": ";", "tsv": "\t", "bar": "|"}.get(kind, ",")
            texts = [(f'"{file}"', label or nothing, *more) for file, label, *more in cells]
            lines = [separator.join(row) for row in [head, *texts]]
            spelled = self.pick(name, name.capitalize(), name.upper())
            file = folder / f"{spelled}.{'tsv' if kind == 'tsv' else 'csv'}"
            file.write_text(self.pick("\n", "\r\n").join(lines) + "\n", encoding=self.pick("utf-8", "utf-8-sig"))

    def workbook(self, path, head, cells):
        book = importlib.import_module("openpyxl").Workbook()
        if self.chance():
            book.active.append(["my notes"])
            sheet = book.create_sheet("labels")
        else:
            sheet = book.active
        for row in ([["a title"], []] if self.chance() else []) + [head, *cells]:
            sheet.append(list(row))
        book.save(path)

    # ---- masks ------------------------------------------------------------------------------------------------------
    def masks(self):
        """({id: mask of 0 and 1 or None}, how they are read)."""
        layout = self.pick("folders", "beside", "splits", "coco", "labelme", "yolo", "cvat", "studio")
        pairs = layout in ("folders", "beside", "splits")
        images = {"folders": self.pick("images", "Img", "input"), "beside": "photos", "splits": "Train"}
        images = images.get(layout, "images")
        kind = self.pick("index", "binary", "alpha", "instances", "float", "jpeg", "palette")
        place, out, drawn = self.pick("masks", "Labels", "gt", "target"), {}, {}
        place = {"beside": images, "splits": "train_masks"}.get(layout, place)
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
            if pairs:
                folder = self.root / place
                folder.mkdir(exist_ok=True)
                ending = "_mask" if layout == "beside" else self.pick("", "_mask", "_GT", path[path.rfind(".") :])
                self.save_mask(mask, kind, folder / f"{stem}{ending}")
            boxed = not pairs and layout != "labelme" and self.chance(0.3)  # beside the object: the lowest row
            if boxed:
                mask[-1] = 255
            drawn[path] = box, boxed
        if pairs:
            given = {"index": 0, "float": 0, "palette": 0, "instances": dict(instances=True)}.get(
                kind, dict(mask_format="binary")
            )
            return out, given or dict(classes=["a", "b"])
        getattr(self, layout)(drawn)
        return out, {}

    def save_mask(self, mask, kind, path):
        if kind == "jpeg":  # of 0 and 255 in blocks that JPEG keeps
            big = Image.fromarray(mask * 255)
            return big.save(f"{path}.jpg", quality=100, subsampling=0)
        if kind == "float":
            return Image.fromarray(mask.astype(np.float32)).save(f"{path}.tif")
        self.mask_picture(mask, kind).save(f"{path}.png")

    def mask_picture(self, mask, kind):
        if kind == "alpha":
            shown = int(self.pick(0, 255))
            return Image.fromarray(np.dstack([np.full_like(mask, shown)] * 3 + [mask * 255]))
        if kind == "instances":
            return Image.fromarray(mask.astype(np.uint16) * int(self.rng.integers(1, 900)))
        if kind == "palette":
            image = Image.fromarray(mask).convert("P")
            image.putpalette([0, 0, 0, 200, 10, 10])
            image.info["transparency"] = 0
            return image
        return Image.fromarray(mask * 255 if kind == "binary" else mask)

    def coco(self, drawn):
        text = self.pick(int, str)  # of ids
        content = {"images": [], "annotations": [], "categories": [{"id": 4, "name": "thing"}]}
        for k, (path, ((x0, y0, x1, y1), boxed)) in enumerate(drawn.items()):
            name = self.pick(path, path.rsplit("/", 1)[-1], path.replace("/", "\\"))
            content["images"].append({"id": k, "file_name": name, "width": SIZE[0], "height": SIZE[1]})
            found = self.pick([[x0, y0, x1, y0, x1, y1, x0, y1]], [x0, y0, x1, y0, x1, y1, x0, y1], None)
            if found is None:
                mask = np.zeros(SIZE, int)  # columns first
                mask[x0:x1, y0:y1] = 1
                ends = np.flatnonzero(np.diff(mask.ravel(), prepend=0, append=mask.ravel()[-1]))
                runs = np.diff([0, *ends, mask.size]).tolist()
                found = {"size": SIZE[::-1], "counts": runs}
            one = {"id": k, "image_id": text(k), "category_id": text(4), "iscrowd": 0}
            content["annotations"].append({**one, "segmentation": found})
            if boxed:
                content["annotations"].append({**one, "segmentation": [], "bbox": [0, SIZE[1] - 1, SIZE[0], 1]})
        file = self.root / self.pick("annotations.json", "annotations/instances.json")
        file.parent.mkdir(exist_ok=True)
        file.write_text(json.dumps(content), encoding="utf-8")

    def labelme(self, drawn):
        for path, ((x0, y0, x1, y1), _) in drawn.items():
            points = [[x0, y0], [x1, y0], [x1, y1], [x0, y1]]
            shape = {"label": "thing", "points": points, "shape_type": "polygon"}
            name = self.pick(path.rsplit("/", 1)[-1], "..\\pics\\" + path.rsplit("/", 1)[-1], "before.png")
            content = dict(shapes=[shape], imagePath=name, imageWidth=SIZE[0], imageHeight=SIZE[1])
            (self.root / path).with_suffix(".json").write_text(json.dumps(content), encoding="utf-8")

    def yolo(self, drawn):
        (self.root / "data.yaml").write_text("names: [thing]\n")
        (self.root / "labels").mkdir()
        for path, ((x0, y0, x1, y1), boxed) in drawn.items():
            w, h = SIZE
            numbers = [x0 / w, y0 / h, x1 / w, y0 / h, x1 / w, y1 / h, x0 / w, y1 / h]
            text = "0 " + " ".join(f"{v:.6f}" for v in numbers) + "\n"
            text += f"0 0.5 {(h - 0.5) / h:.6f} 1 {1 / h:.6f}\n" if boxed else ""
            file = self.on_disk(path)
            (self.root / "labels" / file.name).with_suffix(".txt").write_text(text)

    def on_disk(self, path):
        """The file as it is spelled there."""
        folder = (self.root / path).parent
        return next(f for f in folder.iterdir() if unicodedata.normalize("NFC", f.name) == path.rsplit("/", 1)[-1])

    def cvat(self, drawn):
        parts = []
        for k, (path, ((x0, y0, x1, y1), boxed)) in enumerate(drawn.items()):
            shapes = f'<polygon label="thing" points="{x0},{y0};{x1},{y0};{x1},{y1};{x0},{y1}"/>'
            low, (w, h) = SIZE[1] - 1, SIZE
            shapes += f'<box label="thing" xtl="0" ytl="{low}" xbr="{w}" ybr="{h}"/>' if boxed else ""
            parts.append(f'<image id="{k}" name="{path}" width="{w}" height="{h}">{shapes}</image>')
        text = f"<annotations>{''.join(parts)}</annotations>"
        (self.root / self.pick("annotations.xml", "cvat.XML")).write_text(text, encoding="utf-8")

    def studio(self, drawn):
        tasks = []
        for k, (path, ((x0, y0, x1, y1), boxed)) in enumerate(drawn.items()):
            w, h = SIZE
            points = [[x / w * 100, y / h * 100] for x, y in ((x0, y0), (x1, y0), (x1, y1), (x0, y1))]
            values = [{"points": points, "polygonlabels": ["thing"]}]
            low = {"x": 0, "y": (h - 1) / h * 100, "width": 100, "height": 100 / h, "rectanglelabels": ["thing"]}
            values += [low] if boxed else []
            results = [{"original_width": w, "original_height": h, "value": value} for value in values]
            base = path.rsplit("/", 1)[-1]
            image = self.pick(f"/data/upload/1/0a1b2c3d-{base}", f"/data/local-files/?d=images/{quote(base)}")
            tasks.append({"id": k, "data": {"image": image}, "annotations": [{"result": results}]})
        (self.root / "export.json").write_text(json.dumps(tasks), encoding="utf-8")


def upright(source, i, gray):
    """Whether picture i stands upright, its darker half above."""
    with source.reader(i) as image:
        if image.mode == "F":  # of a range that nobody knows
            source = replace(source, value_range=(0, 65535))
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
