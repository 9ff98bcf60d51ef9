"""What the vendor decides: accept a create, price it, give it an id. Knows no HTTP."""

from __future__ import annotations

import json
import random
import string
from dataclasses import replace
from math import inf
from typing import TYPE_CHECKING, Any, Final
from uuid import UUID

from pipeline.sandbox import clock
from pipeline.sandbox.catalog import find_model
from pipeline.sandbox.durations import parse_durations
from pipeline.sandbox.faults.injector import FaultPoint, RequestContext
from pipeline.sandbox.journal import Journal
from pipeline.sandbox.keys import KeyRing
from pipeline.sandbox.pictures import picture_of
from pipeline.sandbox.state import Generation, SandboxState, Status
from pipeline.sandbox.video.shape import ClipLabel, ClipShape

if TYPE_CHECKING:
    from collections.abc import Mapping

    from pipeline.sandbox.catalog import Model
    from pipeline.sandbox.faults.injector import Fault, FaultInjector
    from pipeline.sandbox.keys import KeyRule
    from pipeline.sandbox.lifecycle import Retirement
    from pipeline.sandbox.options import SandboxOptions

TOKEN_ALPHABET: Final = string.ascii_letters + string.digits + "_-"
FAILURE_FAULTS: Final = frozenset({"error", "error-detail", "error-text", "content-refusal"})


class VendorService:
    """One sandbox's vendor: its options, its state, its keys, its clock and its faults."""

    def __init__(self, options: SandboxOptions, injector: FaultInjector) -> None:
        self.options = options
        self.injector = injector
        self.state = SandboxState(triggered=injector.triggered)
        self.clock = clock.VendorClock(options.clock_offset_s)
        self.keys = KeyRing(options.key_rules, options.management_key)
        self.retired: dict[str, Retirement] = {}
        for retirement in options.retired:
            self.retire(retirement)
        self.journal = Journal(options.journal)
        self._sample_duration_s = parse_durations(options.durations)
        self._creates_received = 0

    def retire(self, retirement: Retirement) -> None:
        """Enter a model, by its id or an alias, into the deprecation feed in place of its earlier entry."""
        model = find_model(retirement.model)
        name = model.id if model is not None else retirement.model
        self.retired[name] = replace(retirement, model=name)

    def sync_from_journal(self) -> None:
        """Enter what the journal holds and this process does not know yet."""
        self.state.restore(one for one in self.journal.read_new() if _is_valid(one))

    def find(self, generation_id: str) -> Generation | None:
        """The generation of that id, also one that another sandbox has since written to the journal."""
        found = self.state.find(generation_id)
        if found is None:
            self.sync_from_journal()
            found = self.state.find(generation_id)
        return found

    def to_real_s(self, vendor_s: float) -> float:
        return vendor_s / self.options.speed

    def create_context(self, body: Mapping[str, Any], correlation_id: str) -> RequestContext:
        """The job that a create is about; the same body is the same job."""
        self._creates_received += 1
        key = json.dumps(body, sort_keys=True, default=str)
        return RequestContext(key, str(body.get("prompt", "")), correlation_id, self._creates_received)

    def price_usd(self, model: Model, body: Mapping[str, Any]) -> float:
        """What the generation will cost if it completes."""
        if model.pricing == "fixed":
            return model.fixed_usd
        if model.pricing == "variable":
            return round(0.2 + 0.01 * (len(str(body.get("prompt", ""))) % 40), 4)
        resolution = model.value(body, "resolution", "1080p")
        price_per_s_usd = (
            self.options.price_720p_usd if resolution == "720p" else self.options.price_1080p_usd
        )
        return round(price_per_s_usd * float(model.value(body, "duration", 8)), 6)

    def spent_usd(self, key: KeyRule, since_s: float) -> float:
        """What generations of that key cost, or will cost, that were created since then."""
        costs = [
            one.price_usd
            for one in self.state.generations
            if one.key_id == key.id and one.created_at >= since_s and one.status is not Status.ERROR
        ]
        return round(sum(costs), 6)

    def key_problem(self, key: KeyRule, price_usd: float) -> str | None:
        """Why the key may not create a generation of that price, as the name of a fault, or None."""
        if key.disabled:
            return "key-disabled"
        if not key.allows_video():
            return "key-scope"
        if key.limit_usd is not None:
            since_s = key.limit_start(self.clock.now()) - self.clock.offset_s
            if self.spent_usd(key, since_s) + price_usd > key.limit_usd + 1e-9:
                return "key-limit"
        return None

    def accept(
        self, model: Model, body: Mapping[str, Any], context: RequestContext, key_id: str
    ) -> Generation:
        """Enter the generation into the journal and the state, and begin to render it.

        Raises `OSError` when the journal cannot be written: then it was not accepted.
        """
        self.sync_from_journal()
        faults = self.injector.pick_all(FaultPoint.GENERATION, context) + self.injector.pick_all(
            FaultPoint.LOG_ROW, context
        )
        number = self.state.next_number
        rng = random.Random(f"{self.options.seed}/{number}")  # alike after a restart
        generation = Generation(
            id=self._new_id(model.id, number, rng),
            number=number,
            correlation_id=context.correlation_id,
            body=body,
            model=model.id,
            request_id=str(UUID(int=rng.getrandbits(128), version=4)),
            created_at=clock.now(),
            render_s=self._render_s(faults, rng),
            price_usd=round(self.price_usd(model, body) * clip_count(faults), 6),
            faults=faults,
            id_is_integer=self.options.id_style == "integer",
            fails=any(fault.name in FAILURE_FAULTS for fault in faults),
            key_id=key_id,
        )
        self.journal.append(generation)
        self.state.add(generation)
        self.state.key_problems.pop(key_id, None)
        return generation

    def _render_s(self, faults: tuple[Fault, ...], rng: random.Random) -> float:
        duration_s = self._sample_duration_s(rng)
        for fault in faults:
            if fault.name == "never-finishes":
                return inf
            if fault.name == "slow":
                duration_s *= fault.number(10.0)
        return self.to_real_s(duration_s)

    def _new_id(self, model: str, number: int, rng: random.Random) -> str:
        uuid = UUID(int=rng.getrandbits(128), version=4)
        match self.options.id_style:
            case "uuid":
                return str(uuid)
            case "number" | "integer":
                return str(400_000_000 + number * 17)
            case "token":
                token = "".join(rng.choices(TOKEN_ALPHABET, k=21))
                return "-" + token[1:] if number % 3 == 0 else token
            case "hostile":
                return f"../../{uuid.hex[:6]}:a/b?c=%2e#d+&e {number}"
            case "uuid-model":
                return f"{uuid}:{model}"


def context_of(generation: Generation) -> RequestContext:
    """Return what faults of requests about a generation go by."""
    return RequestContext(generation.id, generation.prompt, generation.correlation_id, generation.number + 1)


def _is_valid(generation: Generation) -> bool:
    """Return whether this sandbox could have accepted the generation."""
    model = find_model(generation.model)
    return model is not None and not model.validation_errors(generation.body)


def clip_shape(model: Model, body: Mapping[str, Any], *, small: bool) -> ClipShape:
    return ClipShape.for_request(
        str(model.value(body, "resolution", "720p")),
        str(model.value(body, "aspect_ratio", "16:9")),
        float(model.value(body, "duration", 5)),
        bool(model.value(body, "generate_audio", False)),
        small=small,
    )


def clip_count(faults: tuple[Fault, ...]) -> int:
    """How many clips a generation with those faults has; each is paid for."""
    video_list = next((fault for fault in faults if fault.name == "video-list"), None)
    return round(video_list.number(2)) if video_list is not None else 1


def clip_label(generation: Generation, shape: ClipShape, index: int = 0) -> ClipLabel:
    """What the clip shows about itself; `index` counts the clips of one generation from 0."""
    sound = "sound" if shape.audio else "silent"
    picture = f"{shape.width} x {shape.height}"
    details = f"sandbox · {generation.model} · {shape.seconds:g} s · {picture} · {sound}"
    details += f" · clip {index + 1}" if index else ""
    prompt = generation.prompt.encode("utf-8", "replace").decode()  # JSON may hold half a surrogate pair
    look = generation.number + index
    return ClipLabel(prompt, generation.id, generation.model, details, look, picture_of(generation.body))
