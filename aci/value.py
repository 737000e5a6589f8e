"""Values: frozen dataclasses, to a reader and to a type checker, at no import cost.

`import dataclasses` takes longer than the rest of `rkt-py run` has (docs/performance.md), and
everything it would add beyond this file is unused here: fields in order, defaults, `==`, `repr`,
`hash`, `replace`. As with dataclasses, a method the class defines itself is kept.
"""

from __future__ import annotations

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any, TypeVar

    from typing_extensions import dataclass_transform

    T = TypeVar("T")

    @dataclass_transform(frozen_default=True)
    def value(cls: type[T]) -> type[T]: ...

    def replace(item: T, **changes: Any) -> T: ...

else:

    def _eq(self, other):
        return self.__dict__ == other.__dict__ if type(self) is type(other) else NotImplemented

    def _hash(self):
        fields = self.__dict__
        return hash(tuple([fields[name] for name in self.__value_fields__]))

    def _repr(self):
        shown = ", ".join([f"{name}={self.__dict__[name]!r}" for name in self.__value_fields__])
        return f"{type(self).__name__}({shown})"

    def _setattr(self, name, _value=None):
        raise AttributeError(f"cannot set {name!r} of a {type(self).__name__}: it is a value")

    def value(cls):
        """Make a class with annotated fields a frozen value (PEP 681: `dataclass_transform`)."""
        names = tuple(
            [
                name
                for base in reversed(cls.__mro__)
                for name, kind in base.__dict__.get("__annotations__", {}).items()
                if not kind.startswith("ClassVar")
            ]
        )
        # A field whose annotation is repeated by a subclass keeps its first place.
        names = tuple(dict.fromkeys(names))
        count = len(names)
        known = frozenset(names)
        defaults = {name: getattr(cls, name) for name in names if hasattr(cls, name)}
        post_init = getattr(cls, "__post_init__", None)

        def __init__(self, *args, **named):
            fields = self.__dict__
            given = len(args)
            if given != count or named:
                fields.update(defaults)
                fields.update(named)
            fields.update(zip(names, args))
            if (
                given > count
                or len(fields) != count
                or (named and not (named.keys() <= known and named.keys().isdisjoint(names[:given])))
            ):
                fields.clear()
                raise TypeError(f"{cls.__name__}() takes the fields {', '.join(names)}")
            if post_init is not None:
                post_init(self)

        own = cls.__dict__
        cls.__match_args__ = cls.__value_fields__ = names
        cls.__init__ = __init__
        if "__eq__" not in own:
            cls.__eq__ = _eq
        # Python sets `__hash__ = None` in a class that defines only `__eq__`.
        if own.get("__hash__") is None:
            cls.__hash__ = _hash
        if "__repr__" not in own:
            cls.__repr__ = _repr
        cls.__setattr__ = cls.__delattr__ = _setattr
        return cls

    def replace(item, **changes):
        """Return a copy of a value with some fields changed."""
        return type(item)(**{**item.__dict__, **changes})
