"""Unpacks what tables come in: gzip, bzip2, xz, zstd and ZIP archives, recognised by their first bytes."""

import bz2
import gzip
import io
import lzma
import zipfile
import zlib
from pathlib import Path

from minilima.errors import MinilimaError
from minilima.formats.shards import one_table


def archived(path: Path, content: bytes) -> list[tuple[Path, bytes]]:
    """The files with rows in a ZIP archive, each under the archive's path.

    Raises:
        MinilimaError: it is damaged, locked or a spreadsheet, or holds no table or several.
    """
    try:
        with zipfile.ZipFile(io.BytesIO(content)) as archive:
            names = [item.filename for item in archive.infolist() if not item.is_dir()]
            if "[Content_Types].xml" in names or "mimetype" in names:
                raise MinilimaError(f"{path} is a spreadsheet.", "Spreadsheets are not read.", "Save it as CSV in UTF-8.")
            return [(path / name, archive.read(name)) for name in one_table(path, names)]
    except (zipfile.BadZipFile, zlib.error, EOFError, NotImplementedError, RuntimeError) as error:  # the last: a password
        raise MinilimaError(
            f"{path} cannot be unpacked.", f"{str(error).rstrip('.')}.", "Fetch it again, or unpack it."
        ) from None


def unpacked(path: Path, content: bytes) -> bytes:
    """The content of a packed file; of any other file, the content as it is.

    Raises:
        MinilimaError: it is damaged.
    """
    try:
        if content.startswith(b"\x1f\x8b"):
            return gzip.decompress(content)
        if content.startswith(b"BZh"):
            return bz2.decompress(content)
        if content.startswith(b"\xfd7zXZ\x00"):
            return lzma.decompress(content)
        if content.startswith(b"\x28\xb5\x2f\xfd"):
            import pyarrow

            with pyarrow.CompressedInputStream(pyarrow.BufferReader(content), "zstd") as stream:
                return bytes(stream.read())
    except (EOFError, ValueError, zlib.error, lzma.LZMAError, OSError):
        raise MinilimaError(f"{path} cannot be unpacked.", "Its packed data are damaged or cut off.", "Fetch it again.") from None
    return content
