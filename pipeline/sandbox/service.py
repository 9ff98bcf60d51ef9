"""Owns the vendor's decisions: accept a create, quote it, number it, tell how it stands. Knows no HTTP."""

from __future__ import annotations

import json
import random
import string
import time
from math import inf
from typing import TYPE_CHECKING, Any, Final
from uuid import UUID

from pipeline.sandbox.catalog import find_model
from pipeline.sandbox.durations import parse_durations
from pipeline.sandbox.faults.injector import Stage, Subject
from pipeline.sandbox.film.shape import Label, Shape
from pipeline.sandbox.journal import Journal
from pipeline.sandbox.state import Book, Generation

if TYPE_CHECKING:
    from collections.abc import Mapping

    from pipeline.sandbox.catalog import Model
    from pipeline.sandbox.faults.injector import Fault, FaultDesk
    from pipeline.sandbox.options import SandboxOptions

TOKEN_LETTERS: Final = string.ascii_letters + string.digits + "_-"
FAILING: Final = frozenset({"error", "error-detail", "error-text", "content-refusal"})


class Vendor:
    """One sandbox's vendor: its options, its book and its faults."""

    def __init__(self, options: SandboxOptions, desk: FaultDesk) -> None:
        self.options = options
        self.desk = desk
        self.book = Book(struck=desk.struck)
        self._journal = Journal(options.journal) if options.journal is not None else None
        self._draw = parse_durations(options.durations)
        self._arrivals = 0

    @property
    def notes(self) -> tuple[str, ...]:
        """What a person should know about the journal."""
        return tuple(self._journal.notes) if self._journal is not None else ()

    def recall(self) -> None:
        """Take what the journal holds into the book, as far as it is not there yet."""
        if self._journal is not None:
            self.book.restore(one for one in self._journal.read_on() if _known(one))

    def find(self, generation_id: str) -> Generation | None:
        """The generation of that id; one that the journal got from another sandbox since counts too."""
        found = self.book.find(generation_id)
        if found is None:
            self.recall()
            found = self.book.find(generation_id)
        return found

    @property
    def cdn_port(self) -> int:
        """Where URLs that were handed out earlier point to; 0 if there are none."""
        return self._journal.cdn_port if self._journal is not None else 0

    def listens(self, cdn_port: int) -> None:
        """The CDN listens there: the next sandbox will try to as well."""
        if self._journal is not None:
            self._journal.listens(cdn_port)

    def close(self) -> None:
        if self._journal is not None:
            self._journal.close()

    def real_s(self, vendor_s: float) -> float:
        """Vendor's seconds in real ones."""
        return vendor_s / self.options.speed

    def subject(self, body: Mapping[str, Any], correlation_id: str) -> Subject:
        """The job of a create that just arrived; the same body is the same job."""
        self._arrivals += 1
        key = json.dumps(body, sort_keys=True, default=str)
        return Subject(key, str(body.get("prompt", "")), correlation_id, self._arrivals)

    def price_usd(self, model: Model, body: Mapping[str, Any]) -> float:
        """What the generation will cost if it completes."""
        if model.pricing == "fixed":
            return model.fixed_usd
        if model.pricing == "variable":
            return round(0.2 + 0.01 * (len(str(body.get("prompt", ""))) % 40), 4)
        resolution = model.value(body, "resolution", "1080p")
        a_second = self.options.price_720p_usd if resolution == "720p" else self.options.price_1080p_usd
        return round(a_second * float(model.value(body, "duration", 8)), 6)

    def accept(self, model: Model, body: Mapping[str, Any], subject: Subject) -> Generation:
        """Enter the generation into journal and book and begin to render it.

        Raises `OSError` when the journal cannot be written: then it was not accepted.
        """
        self.recall()
        faults = self.desk.pick_all(Stage.GENERATION, subject) + self.desk.pick_all(Stage.LOG_ROW, subject)
        number = self.book.next_number
        chance = random.Random(f"{self.options.seed}/{number}")  # alike after a restart
        generation = Generation(
            id=self._new_id(model.id, number, chance),
            number=number,
            correlation_id=subject.correlation_id,
            body=body,
            model=model.id,
            request_id=str(UUID(int=chance.getrandbits(128), version=4)),
            created_at=time.time(),
            render_s=self._render_s(faults, chance),
            price_usd=self.price_usd(model, body),
            faults=faults,
            id_is_integer=self.options.id_style == "integer",
            fails=any(fault.name in FAILING for fault in faults),
        )
        if self._journal is not None:
            self._journal.append(generation)
        self.book.accept(generation)
        return generation

    def _render_s(self, faults: tuple[Fault, ...], chance: random.Random) -> float:
        drawn_s = self._draw(chance)
        for fault in faults:
            if fault.name == "never-finishes":
                return inf
            if fault.name == "slow":
                drawn_s *= fault.number(10.0)
        return self.real_s(drawn_s)

    def _new_id(self, model: str, number: int, chance: random.Random) -> str:
        uuid = UUID(int=chance.getrandbits(128), version=4)
        match self.options.id_style:
            case "uuid":
                return str(uuid)
            case "number" | "integer":
                return str(400_000_000 + number * 17)
            case "token":
                token = "".join(chance.choices(TOKEN_LETTERS, k=21))
                return "-" + token[1:] if number % 3 == 0 else token
            case "hostile":
                return f"../../{uuid.hex[:6]}:a/b?c=%2e#d+&e {number}"
            case "uuid-model":
                return f"{uuid}:{model}"


def _known(generation: Generation) -> bool:
    """Whether the generation is one that this sandbox could have accepted."""
    model = find_model(generation.model)
    return model is not None and not model.problems(generation.body)


def shape_of(model: Model, body: Mapping[str, Any], *, small: bool) -> Shape:
    """What the finished clip of that body looks like."""
    return Shape.asked(
        str(model.value(body, "resolution", "720p")),
        str(model.value(body, "aspect_ratio", "16:9")),
        float(model.value(body, "duration", 5)),
        bool(model.value(body, "generate_audio", False)),
        small=small,
    )


def label_of(generation: Generation, shape: Shape) -> Label:
    """What the clip says about itself."""
    sound = "sound" if shape.audio else "silent"
    picture = f"{shape.picture.width} x {shape.picture.height}"
    details = f"sandbox · {generation.model} · {shape.seconds:g} s · {picture} · {sound}"
    prompt = generation.prompt.encode("utf-8", "replace").decode()  # JSON may hold half a surrogate pair
    return Label(prompt, generation.id, generation.model, details)
