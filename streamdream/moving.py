"""Options whose values move while a run goes on, see `schedule`."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Self

from pydantic import BaseModel, ModelWrapValidatorHandler, PrivateAttr, model_validator
from pydantic.fields import FieldInfo

from streamdream.keys import Span, is_schedule
from streamdream.schedule import Clock, Moment, Schedule


class Moving(BaseModel):
    """Options of which some can be given as a schedule; their fields hold its first value.

    `at` gives the options in force at a moment. Which can move is marked by `options.moves`.
    """

    _schedules: dict[str, Schedule] = PrivateAttr(default_factory=dict)

    @model_validator(mode="wrap")
    @classmethod
    def _taken_out(cls, data: Any, handler: ModelWrapValidatorHandler[Self]) -> Self:
        if not isinstance(data, Mapping):
            return handler(data)
        found = {}
        for name, value in data.items():
            field = cls.model_fields.get(name)
            schedule = None if field is None else _schedule(name, field, value)
            if schedule is not None:
                found[name] = schedule
        made = handler({**data, **{name: schedule.start for name, schedule in found.items()}})
        made._schedules = found
        made._check_together()
        return made

    def _check_together(self) -> None:
        """Raise ValueError where values do not go together, knowing which of them move.

        What is typed is put over presets and files first, so its own model checks nothing here.
        """

    @property
    def schedules(self) -> Mapping[str, Schedule]:
        """What moves, by field."""
        return self._schedules

    def at(self, moment: Moment) -> Self:
        """The options in force at a moment of the stream: nothing of them moves any more."""
        if not self._schedules:
            return self
        values = {name: schedule.at(moment) for name, schedule in self._schedules.items()}
        return self.model_copy(update=values)

    def asks(self, name: str) -> bool:
        """Whether an option is another than usual, or moves."""
        usual = type(self).model_fields[name].get_default()
        return name in self._schedules or getattr(self, name) != usual

    def clocked(self, clock: Clock) -> Self:
        """The same, with this clock for positions in frames and percent.

        Raises OptionError where that shows a mistake; see `Schedule.clocked`.
        """
        if not self._schedules:
            return self
        found = self.model_copy()
        found._schedules = {name: s.clocked(clock) for name, s in self._schedules.items()}
        return found

    def given(self, all_fields: bool = False) -> dict[str, object]:
        """The values that were given (or all), schedules as such: to make such options again."""
        names = type(self).model_fields if all_fields else self.model_fields_set
        return {name: self._schedules.get(name, getattr(self, name)) for name in names}

    def model_copy(self, *, update: Mapping[str, Any] | None = None, deep: bool = False) -> Self:
        """A copy; a value in `update` takes the place of a schedule."""
        found = super().model_copy(update=update, deep=deep)
        if update and self._schedules:
            found._schedules = {n: s for n, s in self._schedules.items() if n not in update}
        return found


def typed(name: str) -> str:
    """A field as an option is typed."""
    return "--" + name.replace("_", "-")


def takes_schedules(field: FieldInfo) -> bool:
    """Whether a field takes schedules."""
    extra = field.json_schema_extra
    return isinstance(extra, dict) and bool(extra.get("moves"))


def _schedule(name: str, field: FieldInfo, value: object) -> Schedule | None:
    """What moves the field, None for a value that stays."""
    if not takes_schedules(field):
        return None
    layers = field.annotation not in (int, float)
    text = value.text if isinstance(value, Schedule) else _text(value)
    stays = text is None or (not is_schedule(text) if layers else _is_number(text))
    if text is None or (stays and not isinstance(value, Mapping)):
        return None
    span = None if layers else Span.of(field)
    return Schedule.read(name.replace("_", "-"), text, span)


def _text(value: object) -> str | None:
    """A schedule's text; a table of positions and values is written as one."""
    if isinstance(value, Mapping):
        return ", ".join(f"{key}: {_joined(part)}" for key, part in value.items())
    if isinstance(value, list | tuple) and value and all(isinstance(v, str) for v in value):
        return _joined(value)
    return value if isinstance(value, str) else None


def _joined(value: object) -> str:
    return ",".join(map(str, value)) if isinstance(value, list | tuple) else str(value)


def _is_number(text: str) -> bool:
    try:
        float(text or 0)
    except ValueError:
        return False
    return True
