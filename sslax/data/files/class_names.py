"""Labels as they are written in files, numbered: names of classes, or their numbers."""

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np

from sslax.data.records import DataError, as_labels


class Classes(NamedTuple):
    """The classes of a training set.

    Attributes:
        names: of all classes, by number.
        numbered: whether files have the numbers rather than the names.
    """

    names: tuple[str, ...]
    numbered: bool

    @classmethod
    def of(cls, labels: Sequence[str]) -> "Classes":
        """The classes of a training set's labels: whole numbers as they are, or names sorted.

        Raises:
            DataError: numbers go beyond how many images there are.

        Example:
            >>> Classes.of(["dog", "cat", "dog"]).names
            ('cat', 'dog')
            >>> Classes.of(["0", "2", "2"]).names
            ('0', '1', '2')
        """
        written = sorted(set(labels))
        if not all(_is_number(label) for label in written):
            return cls(tuple(written), numbered=False)
        count = 1 + max(int(label) for label in written)
        if count > len(labels):
            raise DataError(
                f"there are labels up to {count - 1} for {len(labels)} images: number the classes "
                "from 0, or write their names"
            )
        return cls(tuple(str(i) for i in range(count)), numbered=True)

    def numbers(self, labels: Sequence[str], what: str) -> np.ndarray:
        """Labels as int32 `[N]`.

        Args:
            labels: as they are written.
            what: names them in messages.

        Raises:
            DataError: the training set does not have one of them.

        Example:
            >>> Classes.of(["dog", "cat"]).numbers(["dog", "dog"], "labels").tolist()
            [1, 1]
        """
        known = {name: i for i, name in enumerate(self.names)}
        keys = [str(int(x)) if self.numbered and _is_number(x) else x for x in labels]
        if unknown := sorted({key for key in keys if key not in known}):
            some = ", ".join(map(repr, self.names[:5])) + (", ..." if self.names[5:] else "")
            raise DataError(
                f"{what} have {unknown[0]!r}, which the training set does not (it has {some}): "
                "give both the same classes"
            )
        return as_labels(np.array([known[key] for key in keys], np.int64), what, len(keys))


def _is_number(label: str) -> bool:
    return label.isascii() and label.isdigit()
