from .image_cache import ResidentCache, build_padded_cache  # noqa: F401  transition: this whole file


def ResidentPaddedCache(images, ids, indices, sizes, skipped=()):
    return ResidentCache(images, ids, indices, skipped, sizes)
