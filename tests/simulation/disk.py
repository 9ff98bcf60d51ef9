"""A disk as POSIX has it: what was not synced may be lost, torn or left out when the power goes.

A file's bytes are durable by `fsync` of the file, its name by `fsync` of the folder, each without the other.
"""

from __future__ import annotations

import errno
import os
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Final

if TYPE_CHECKING:
    from tests.simulation.machine import Process
    from tests.simulation.world import World

FIRST_FD: Final = 1_000_000
"""No real file has such a number, should one of these ever reach the real system."""


@dataclass(eq=False, slots=True)
class Inode:
    """A file: its bytes now, and those that a power cut leaves for certain (None: nothing is)."""

    number: int
    data: bytearray = field(default_factory=bytearray)
    durable: bytes | None = None
    mtime_ns: int = 0
    locked_by: int | None = None

    @property
    def is_durable(self) -> bool:
        return self.durable is not None and self.durable == self.data


@dataclass(eq=False, slots=True)
class OpenFile:
    inode: Inode
    process: Process
    position: int = 0


def raise_os_error(number: int, path: str) -> None:
    raise OSError(number, os.strerror(number), path)


class Disk:
    """The files of one machine, by path. Folders are paths too; `names` is what is there now."""

    def __init__(self, world: World) -> None:
        self.world = world
        self.names: dict[str, Inode] = {}
        self.folders: dict[str, None] = {"/": None}
        self.open_files: dict[int, OpenFile] = {}
        self.full = False
        self._durable_names: dict[str, Inode] = {}
        self._durable_folders: dict[str, None] = {"/": None}
        self._pending: dict[str, list[tuple[tuple[str, Inode | None], ...]]] = {}
        self._inodes = 0
        self._next_fd = FIRST_FD

    def touch(self, path: str, *, writes: bool = False) -> None:
        """Count an operation: the process may die here, the disk be full or fail."""
        self.world.on_step()
        if writes and self.full:
            raise_os_error(errno.ENOSPC, path)
        if writes and (kind := self.world.chance.draw("disk")):
            raise_os_error(errno.ENOSPC if kind == "full" else errno.EIO, path)

    def new_inode(self) -> Inode:
        self._inodes += 1
        return Inode(self._inodes)

    def find(self, path: str) -> Inode:
        inode = self.names.get(path)
        if inode is None:
            raise_os_error(errno.EISDIR if path in self.folders else errno.ENOENT, path)
            raise AssertionError
        return inode

    def link(self, *changes: tuple[str, Inode | None]) -> None:
        """Change names in one folder, at once: a name's file, None to take it away."""
        for path, inode in changes:
            if inode is None:
                self.names.pop(path, None)
            else:
                self.names[path] = inode
        self._pending.setdefault(_folder(changes[0][0]), []).append(changes)

    def make_folder(self, path: str, *, parents: bool, exist_ok: bool) -> None:
        if path in self.folders:
            if not exist_ok:
                raise_os_error(errno.EEXIST, path)
            return
        if _folder(path) not in self.folders:
            if not parents:
                raise_os_error(errno.ENOENT, path)
            self.make_folder(_folder(path), parents=True, exist_ok=True)
        self.touch(path, writes=True)
        self.folders[path] = None

    def open(self, process: Process, path: str, *, create: bool) -> int:
        """Open a file, or a folder to be synced; return its number."""
        if path in self.folders:
            inode = Inode(-1)
        elif path in self.names or not create:
            inode = self.find(path)
        else:
            if _folder(path) not in self.folders:
                raise_os_error(errno.ENOENT, path)
            self.touch(path, writes=True)
            inode = self.new_inode()
            self.stamp(inode)
            self.link((path, inode))
        self._next_fd += 1
        self.open_files[self._next_fd] = OpenFile(inode, process)
        if path in self.folders:
            self._folder_of_fd()[self._next_fd] = path
        return self._next_fd

    def _folder_of_fd(self) -> dict[int, str]:
        return self.world.folder_fds

    def close(self, fd: int) -> None:
        opened = self.open_files.pop(fd)
        self.world.folder_fds.pop(fd, None)
        if opened.inode.locked_by == fd:
            opened.inode.locked_by = None

    def stamp(self, inode: Inode) -> None:
        inode.mtime_ns = round(self.world.now * 1e9) + inode.number

    def write(self, fd: int, data: bytes) -> None:
        opened = self.open_files[fd]
        self.touch("", writes=True)
        end = opened.position + len(data)
        opened.inode.data[opened.position : end] = data
        opened.position = end
        self.stamp(opened.inode)

    def truncate(self, fd: int, size: int) -> None:
        self.touch("", writes=True)
        inode = self.open_files[fd].inode
        del inode.data[size:]
        self.stamp(inode)

    def sync(self, fd: int) -> None:
        """Make a file's bytes, or a folder's names, survive a power cut."""
        self.touch("", writes=True)
        folder = self.world.folder_fds.get(fd)
        if folder is None:
            inode = self.open_files[fd].inode
            inode.durable = bytes(inode.data)
            return
        for changes in self._pending.pop(folder, ()):
            self._keep(changes)
        for path in self.folders:
            if _folder(path) == folder:
                self._durable_folders[path] = None

    def _keep(self, changes: tuple[tuple[str, Inode | None], ...]) -> None:
        for path, inode in changes:
            if inode is None:
                self._durable_names.pop(path, None)
            else:
                self._durable_names[path] = inode

    def is_durable(self, path: str) -> bool:
        """Say whether a power cut right now would leave the file as it is, under this name."""
        inode = self.names.get(path)
        folder = _folder(path)
        while folder != "/":
            if folder not in self._durable_folders:
                return False
            folder = _folder(folder)
        return inode is not None and inode.is_durable and self._durable_names.get(path) is inode

    def crash(self, process: Process) -> None:
        """A process is gone: the kernel closes what it had open."""
        for fd in [fd for fd, opened in self.open_files.items() if opened.process is process]:
            self.close(fd)

    def cut_power(self) -> None:
        """Lose what was not synced: a later part of each folder's changes, and of each file some bytes."""
        chance = self.world.chance.stream("power")
        for changes in self._pending.values():
            for change in changes[: chance.randrange(len(changes) + 1)]:
                self._keep(change)
        for path in self.folders:
            if path not in self._durable_folders and chance.random() < 0.5:
                self._durable_folders[path] = None
        self.folders = {
            path: None
            for path in self._durable_folders
            if all(parent in self._durable_folders for parent in _parents(path))
        }
        self.names = {
            path: inode for path, inode in self._durable_names.items() if _folder(path) in self.folders
        }
        for inode in self.names.values():
            if not inode.is_durable:
                whole = bytes(inode.data)
                torn = whole[: chance.randrange(len(whole) + 1)]
                # The length may be on the disk before the bytes are: zeros from some point on.
                zeros = torn + bytes(len(whole) - len(torn))
                inode.data = bytearray(chance.choice((inode.durable or b"", whole, torn, zeros)))
                inode.durable = bytes(inode.data)
        self._durable_names = dict(self.names)
        self._durable_folders = dict(self.folders)
        self._pending.clear()
        self.open_files.clear()

    def put(self, path: str, data: bytes, *, durable: bool = True) -> None:
        """Let a file be there, durably unless said otherwise, that no process of ours wrote."""
        inode = self.new_inode()
        inode.data, inode.durable = bytearray(data), bytes(data) if durable else None
        self.put_folder(_folder(path))
        self.names[path] = self._durable_names[path] = inode

    def put_folder(self, path: str) -> None:
        """Let a folder be there, durably."""
        for folder in (path, *_parents(path)):
            self.folders[folder] = self._durable_folders[folder] = None

    def remove(self, path: str) -> None:
        """Take a file away, as its user would."""
        self.names.pop(path, None)
        self._durable_names.pop(path, None)


def _folder(path: str) -> str:
    return path.rpartition("/")[0] or "/"


def _parents(path: str) -> list[str]:
    found = []
    while path != "/":
        path = _folder(path)
        found.append(path)
    return found
