"""Pictures that are files, looked at before anything is spent: what they are, and how they will travel."""

from __future__ import annotations

from collections import Counter
from functools import lru_cache
from typing import TYPE_CHECKING, Final

from pipeline.images.check import ImageFindings, find_warnings, size_problem
from pipeline.images.delivery import Way
from pipeline.images.normalize import read_info
from pipeline.images.prepared import PictureError
from pipeline.manifest.fields import MediaKind
from pipeline.manifest.local_files import NAME_A_PICTURE, referenced
from pipeline.manifest.problems import Problem, ProblemText, format_value

if TYPE_CHECKING:
    from collections.abc import Sequence

    from pipeline.images.delivery import PictureDelivery
    from pipeline.images.header import ImageInfo
    from pipeline.manifest.local_files import LocalFile
    from pipeline.model import Job
    from pipeline.settings import Settings

THREE_WAYS: Final = (
    "give --image-store s3://bucket/prefix, or --image-base-url where the folder is published,"
    " or a model that takes pictures by value"
)
TURNED: Final = (
    "only its EXIF orientation turns it upright",
    "the vendor may animate it lying on its side",
    "publish it turned, or use --image-store in place of --image-base-url, which turns it",
)
_WAY_TEXTS: Final = {
    Way.VALUE: "by value, as data: URIs in the requests",
    Way.LINK: "by a link into {store}, uploaded once and signed for each request",
    Way.PLACE: "by their address below {place}",
}


def check_local_files(jobs: Sequence[Job], delivery: PictureDelivery, manifest: str) -> ImageFindings:
    """Return what is wrong, and what is odd, with the files that `jobs` name; `manifest` is its name.

    Headers are read, nothing is decoded: a file that is damaged inside fails its row, before it is sent.
    """
    problems: list[Problem] = []
    warnings: list[Problem] = []
    bad: set[str] = set()
    seen: set[tuple[str, object]] = set()
    for job in jobs:
        ratio = job.body.get("aspect_ratio")
        for sha256 in referenced(job.body):
            file = delivery.files[sha256]
            if file.kind is MediaKind.VIDEO or (sha256, ratio) in seen:
                continue
            seen.add((sha256, ratio))
            info = _info_of(file)
            name = f"image {format_value(file.written[:200])}"
            if isinstance(info, str):
                problems.append(Problem(manifest, job.line, job.column, name, info, NAME_A_PICTURE))
                bad.add(job.id)
                continue
            warnings += [
                Problem(manifest, job.line, job.column, f"{name}: {text[0]}", *text[1:])
                for text in _oddities(info, delivery.settings, ratio)
            ]
    return ImageFindings(tuple(problems), tuple(warnings), frozenset(bad))


def _oddities(info: ImageInfo, settings: Settings, ratio: object) -> list[ProblemText]:
    """Say what is odd about a picture, by how it travels."""
    small = size_problem(info)
    texts = [] if small is None else [small]
    if not settings.image_base_url:
        return texts + find_warnings(info, None if settings.fit else ratio, converted=True)
    # What is published is sent as it is: neither turned, converted nor fitted.
    if not info.upright:
        texts.append(TURNED)
    return texts + find_warnings(info, ratio)


def file_problem(file: LocalFile) -> str:
    """Return why a file is no picture, "" for one that is, and for a video. Blocking."""
    info = "" if file.kind is MediaKind.VIDEO else _info_of(file)
    return info if isinstance(info, str) else ""


def _info_of(file: LocalFile) -> ImageInfo | str:
    return _cached_info(file)


@lru_cache(maxsize=100_000)
def _cached_info(file: LocalFile) -> ImageInfo | str:
    try:
        return read_info(file)
    except PictureError as error:
        return str(error)


def missing_way(jobs: Sequence[Job], delivery: PictureDelivery, manifest: str) -> Problem | None:
    """Return the problem of the first row whose picture cannot travel in any way that is given."""
    for job in jobs:
        for field in _fields_with_files(job):
            if delivery.way(job.model, field) is None:
                what = f"{field} is a file, and {job.model} takes only links"
                return Problem(manifest, job.line, job.column, what, "the vendor cannot see it", THREE_WAYS)
    return None


def describe_ways(jobs: Sequence[Job], delivery: PictureDelivery) -> list[str]:
    """Say how many pictures travel in which way, one line each."""
    ways: dict[str, Way] = {}
    for job in jobs:
        for field in _fields_with_files(job):
            way = delivery.way(job.model, field)
            if way is not None:
                ways |= dict.fromkeys(referenced(job.body[field]), way)
    settings = delivery.settings
    places = {"store": settings.image_store, "place": settings.image_base_url}
    return [
        f"{count:,} file{'' if count == 1 else 's'} travel{'s' if count == 1 else ''} "
        + _WAY_TEXTS[way].format(**places)
        for way, count in Counter(ways.values()).items()
    ]


def _fields_with_files(job: Job) -> list[str]:
    return [name for name, value in job.body.items() if referenced(value)]
