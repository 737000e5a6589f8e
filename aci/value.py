"""Values: frozen dataclasses, to a reader and to a type checker, at no import cost.

`import dataclasses` takes longer than the rest of `rkt-py run` has (docs/performance.md), and
everything it would add beyond this file is unused here: fields in order, defaults, `==`, `repr`,
`hash`, `replace`.
"""

from __future__ import annotations

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any, TypeVar

    from typing_extensions import dataclass_transform

    T = TypeVar("T")

    @dataclass_transform(frozen_default=True)
    def value(cls: type[T]) -> type[T]: ...

else:

    def value(cls):
        """Make a class with annotated fields a frozen value (PEP 681: `dataclass_transform`)."""
        names = tuple(
            name
            for base in reversed(cls.__mro__)
            for name, kind in base.__dict__.get("__annotations__", {}).items()
            if not kind.startswith("ClassVar")
        )
        cls.__match_args__ = cls.__value_fields__ = names
        defaults = {name: getattr(cls, name) for name in names if hasattr(cls, name)}
        required = frozenset(names) - frozenset(defaults)
        post_init = getattr(cls, "__post_init__", None)

        def __init__(self, *args, **named):
            fields = dict(defaults)
            fields.update(zip(names, args))
            fields.update(named)
            if (
                len(args) > len(names)
                or len(fields) != len(names)
                or not required <= named.keys() | frozenset(names[: len(args)])
                or not named.keys().isdisjoint(names[: len(args)])
            ):
                raise TypeError(f"{cls.__name__}() takes the fields {', '.join(names)}")
            self.__dict__.update(fields)
            if post_init is not None:
                post_init(self)

        def __eq__(self, other):
            return self.__dict__ == other.__dict__ if type(self) is type(other) else NotImplemented

        def __hash__(self):
            return hash(tuple(self.__dict__[name] for name in names))

        def __repr__(self):
            shown = ", ".join(f"{name}={self.__dict__[name]!r}" for name in names)
            return f"{type(self).__name__}({shown})"

        def __setattr__(self, name, _value=None):
            raise AttributeError(f"cannot set {name!r} of a {type(self).__name__}: it is a value")

        for method in (__init__, __eq__, __hash__, __repr__, __setattr__):
            setattr(cls, method.__name__, method)
        cls.__delattr__ = __setattr__
        return cls


if TYPE_CHECKING:

    def replace(item: T, **changes: Any) -> T: ...

else:

    def replace(item, **changes):
        """Return a copy of a value with some fields changed."""
        return type(item)(**{**item.__dict__, **changes})
