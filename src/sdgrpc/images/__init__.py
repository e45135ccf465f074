"""Image files to pixels and back. No torch here.

`decode` and `decode_mask` read a file in this process; `readers` reads files of strangers in processes that
can be ended.
"""

from sdgrpc.images.decoding import decode, decode_mask, read, to_image, to_picture
from sdgrpc.images.encoding import EXIF_IFD, JPEG, MEDIA_TYPES, PNG, USER_COMMENT, WEBP, encode
from sdgrpc.images.limits import ImageError, ImageLimits
from sdgrpc.images.reading import ReadAs, Reading

__all__ = [
    "EXIF_IFD",
    "JPEG",
    "MEDIA_TYPES",
    "PNG",
    "USER_COMMENT",
    "WEBP",
    "ImageError",
    "ImageLimits",
    "ReadAs",
    "Reading",
    "decode",
    "decode_mask",
    "encode",
    "read",
    "to_image",
    "to_picture",
]
