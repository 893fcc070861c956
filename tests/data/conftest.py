"""Small generated images, and caches that belong to the test."""

from __future__ import annotations

import io
import sys
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

sys.path.insert(0, str(Path(__file__).parents[1]))  # hub_server


@pytest.fixture(autouse=True)
def own_cache(tmp_path_factory, monkeypatch):
    import datasets

    monkeypatch.setattr(datasets.config, "HF_DATASETS_CACHE", tmp_path_factory.mktemp("cache"))
    datasets.disable_progress_bars()


def picture(seed: int, width: int = 12, height: int = 10, mode: str = "RGB") -> Image.Image:
    values = np.random.default_rng(seed).integers(0, 256, (height, width, 3), dtype=np.uint8)
    return Image.fromarray(values).convert(mode)


def encoded(image: Image.Image, kind: str = "PNG", **options) -> bytes:
    buffer = io.BytesIO()
    image.save(buffer, kind, **options)
    return buffer.getvalue()


@pytest.fixture
def make():
    """make.picture(seed, ...) -> PIL image; make.encoded(image) -> bytes; make.files(root, names) writes PNG files."""

    class Make:
        picture, encoded = staticmethod(picture), staticmethod(encoded)

        @staticmethod
        def files(root: Path, names) -> Path:
            for seed, name in enumerate(names):
                (root / name).parent.mkdir(parents=True, exist_ok=True)
                (root / name).write_bytes(encoded(picture(seed)))
            return root

        @staticmethod
        def table(path: Path, labels, *, seed: int = 0, **columns) -> Path:
            """Parquet of generated images; `columns` may replace "image" or "label" or add others."""
            import pyarrow as pa
            import pyarrow.parquet as pq

            images = [{"bytes": encoded(picture(seed + i)), "path": None} for i in range(len(labels))]
            columns = {"image": images, "label": labels} | columns
            path.parent.mkdir(parents=True, exist_ok=True)
            pq.write_table(pa.table({name: v for name, v in columns.items() if v is not None}), path)
            return path

    return Make
