"""One folder's files in another place, over any file system that fsspec knows: a bucket, a server, a disk.

The writer sends what has changed and then an index with the sha256 of every file; a reader believes what the
index says and nothing else, so that a half sent file, or a half sent index, is read again later. Loads no
torch.
"""

from __future__ import annotations

import hashlib
import json
import logging
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any
from urllib.parse import quote

from fsspec.core import url_to_fs

from store.errors import BadValue

logger = logging.getLogger(__name__)

INDEX = "index.json"
# Of a round's directory: who works in it, what is half written, and the log, which comes over the command.
_OWN = frozenset({"lock", "log.txt"})
WHOLE_BYTES = 16 * 2**20  # up to here a file is read at once, so that one that grows is sent as it was


def list_files(folder: Path) -> dict[str, Path]:
    """Every file that is to be the same in both places, by its name under the folder."""
    names = {str(path.relative_to(folder)): path for path in folder.rglob("*") if path.is_file()}
    return {
        name: path
        for name, path in sorted(names.items())
        if name not in _OWN and not any(part.endswith(".tmp") for part in Path(name).parts)
    }


@dataclass(slots=True)
class _Sent:
    size: int
    mtime_ns: int
    sha256: str


@dataclass(slots=True)
class Mirror:
    """The other place. Names are flat there: not every file system has folders."""

    url: str
    _files: Any = None
    _root: str = ""
    _sent: dict[str, _Sent] = field(default_factory=dict)
    _index: str = ""
    _got: dict[str, str] = field(default_factory=dict)

    def __post_init__(self) -> None:
        try:
            self._files, self._root = url_to_fs(self.url, skip_instance_cache=True)
        except (ValueError, ImportError) as error:
            raise BadValue(f"{self.url!r} is no place for a round: {error}") from error

    def push(self, files: Mapping[str, Path], **facts: Any) -> None:
        """Send what has changed since the last time, then the index, with `facts` in it for the reader."""
        self._files.makedirs(self._root, exist_ok=True)
        for name, path in files.items():
            try:
                self._send(name, path)
            except FileNotFoundError:  # an old checkpoint that was removed meanwhile: the next push drops it
                logger.info("%s was removed before it was sent", name)
        gone = set(self._sent) - set(files)
        for name in gone:
            del self._sent[name]
        listed = {name: sent.sha256 for name, sent in self._sent.items()}
        index = json.dumps(facts | {"files": listed}, sort_keys=True)
        if index != self._index:
            self.write(INDEX, index)
            self._index = index
        for name in gone:
            self._files.rm_file(self._at(name))

    def pull(self, folder: Path) -> dict[str, Any] | None:
        """Fetch what has changed; the writer's facts, or None when not everything could be had whole yet.

        What this mirror fetched and the index does not name any more is removed.
        """
        told = self.read(INDEX)
        if told is None:
            return None
        wanted: dict[str, str] = told.pop("files")
        # In order of names, up to the first that is not whole: a verdict never comes before its candidate.
        if not all(self._fetch(folder, name, wanted[name]) for name in sorted(wanted)):
            return None
        for name in set(self._got) - set(wanted):
            (folder / name).unlink(missing_ok=True)
            del self._got[name]
        return told

    def write(self, name: str, text: str) -> None:
        """A small file beside the others."""
        self._files.makedirs(self._root, exist_ok=True)
        self._files.pipe_file(self._at(name), text.encode())

    def read(self, name: str) -> dict[str, Any] | None:
        """A small JSON file; None while it is not there or not whole."""
        self._files.invalidate_cache()
        try:
            found: dict[str, Any] = json.loads(self._files.cat_file(self._at(name)))
        except FileNotFoundError:
            return None
        except ValueError:
            logger.info("%s in %s is only half there yet", name, self.url)
            return None
        return found

    def remove(self) -> None:
        """Everything there."""
        self._files.invalidate_cache()
        if self._files.exists(self._root):
            self._files.rm(self._root, recursive=True)

    def _at(self, name: str) -> str:
        return f"{self._root}/{quote(name, safe='')}"

    def _send(self, name: str, path: Path) -> None:
        stat, before = path.stat(), self._sent.get(name)
        if before is not None and (before.size, before.mtime_ns) == (stat.st_size, stat.st_mtime_ns):
            return
        if stat.st_size <= WHOLE_BYTES:
            content = path.read_bytes()
            sha256 = hashlib.sha256(content).hexdigest()
            if before is None or before.sha256 != sha256:
                self._files.pipe_file(self._at(name), content)
        else:
            sha256 = _sha256(path)
            self._files.put_file(str(path), self._at(name))
        self._sent[name] = _Sent(stat.st_size, stat.st_mtime_ns, sha256)

    def _fetch(self, folder: Path, name: str, sha256: str) -> bool:
        """Whether the file is here as the index has it."""
        if self._got.get(name) == sha256:
            return True
        target = folder / name
        if not target.resolve().is_relative_to(folder.resolve()):
            raise BadValue(f"{self.url} names {name!r}, which is not inside a round's directory")
        target.parent.mkdir(parents=True, exist_ok=True)
        draft = target.with_name(f"{target.name}.tmp")
        self._files.get_file(self._at(name), str(draft))
        if _sha256(draft) != sha256:
            draft.unlink()
            return False
        draft.replace(target)
        self._got[name] = sha256
        return True


def _sha256(path: Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()
