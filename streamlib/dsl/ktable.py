"""Tables: the latest value of each key, and the changes of it."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, Any, Generic, Literal, Self, TypeVar, overload

from streamlib.dsl.functions import UNSET, Hint, returns, returns_pair, serde_of
from streamlib.dsl.graph import Point
from streamlib.dsl.kstream import KStream
from streamlib.dsl.materialized import Materialized, StoreOption
from streamlib.dsl.processing import store_name
from streamlib.dsl.suppressed import Suppressed, suppression
from streamlib.dsl.transformer import ValueTransformer
from streamlib.errors import TopologyError
from streamlib.serdes import Serde
from streamlib.topology import operators as op
from streamlib.topology.checks import check_topic_name
from streamlib.topology.functions import supplied_stores, transformer_supplier, user_function
from streamlib.topology.nodes import Partitioner, StoreSpec

if TYPE_CHECKING:
    from streamlib.dsl.table_grouped import KGroupedTable

K = TypeVar("K")
V = TypeVar("V")
K2 = TypeVar("K2")
V2 = TypeVar("V2")
VO = TypeVar("VO")
VR = TypeVar("VR")


class KTable(Generic[K, V]):
    """A table with keys of type `K` and rows of type `V`; a None value deletes a row.

    A table is kept in a store only if it has to be: if it is aggregated, joined with, or given a `store=`.
    """

    def __init__(
        self,
        point: Point,
        store: str | None = None,
        *,
        parents: tuple[KTable[Any, Any], ...] = (),
        old_from: tuple[KTable[Any, Any], ...] | None = None,
        buffer: str | None = None,
    ) -> None:
        self._point = point
        self._store = store  # that the table's node writes
        self._parents = parents  # whose rows its rows are worked out from, if there is no store
        self._old_from = (() if store else parents) if old_from is None else old_from  # whose old values it needs
        self._buffer = () if buffer is None else (buffer,)  # where changes wait, which a look-up has to know
        self._unopened: StoreSpec | None = None  # of a source: the store to open once something needs the rows
        self._sends_old = False

    @classmethod
    def _source(cls, point: Point, store: StoreSpec) -> Self:
        """A table straight from a topic or stream; kept in this store once something needs it."""
        table = cls(point)
        table._unopened = store
        return table

    @classmethod
    def _stored(cls, point: Point, store: str) -> Self:
        """A table whose node writes the store itself."""
        return cls(point, store)

    def _lookup_stores(self) -> tuple[str, ...]:
        """The stores that looking up a row reads; sees to it that they are kept."""
        if self._unopened is not None:
            self._point.builder.materialize(self._point.node, self._unopened)
            self._store, self._unopened = self._unopened.name, None
        if self._store is not None:
            return (self._store,)
        assert self._parents, "a table is stored, or derived from others"
        above = (store for table in self._parents for store in table._lookup_stores())
        return tuple(dict.fromkeys((*self._buffer, *above)))

    def _send_old_values(self, *, force: bool) -> bool:
        """Let this table's changes carry old values; returns whether they do.

        Args:
            force: keep source tables for it. Without, it is done only if it costs no further store.

        Source: `KTableImpl.enableSendingOldValues`.
        """
        if self._sends_old:
            return True
        if self._unopened is not None:
            if not force:
                return False
            self._lookup_stores()
        if not all(table._send_old_values(force=force) for table in self._old_from):
            return False
        self._point.builder.send_old_values(self._point.node)
        self._sends_old = True
        return True

    def filter(
        self, predicate: Callable[[K, V], object], *, store: StoreOption = None, name: str | None = None
    ) -> KTable[K, V]:
        """Keep the rows that `predicate(key, value)` accepts; a row that fails is deleted.

        >>> from streamlib.testing import run_stream
        >>> run_stream(
        ...     lambda s: s.to_table().filter(lambda key, value: value > 1).to_stream(), [("a", 1), ("a", 2)]
        ... )
        [('a', None), ('a', 2)]
        """
        return self._filter(user_function(predicate, "filter"), False, store, name)

    def filter_not(
        self, predicate: Callable[[K, V], object], *, store: StoreOption = None, name: str | None = None
    ) -> KTable[K, V]:
        """Keep the rows that `predicate(key, value)` refuses.

        >>> from streamlib.testing import run_stream
        >>> run_stream(lambda s: s.to_table().filter_not(lambda key, value: value > 1).to_stream(), [("a", 1)])
        [('a', 1)]
        """
        return self._filter(user_function(predicate, "filter_not"), True, store, name)

    @overload
    def map_values(
        self, mapper: Callable[[V], VR], *, value: Hint = ..., store: StoreOption = ..., name: str | None = ...
    ) -> KTable[K, VR]: ...
    @overload
    def map_values(
        self,
        mapper: Callable[[K, V], VR],
        *,
        with_key: Literal[True],
        value: Hint = ...,
        store: StoreOption = ...,
        name: str | None = ...,
    ) -> KTable[K, VR]: ...
    def map_values(
        self,
        mapper: Callable[..., Any],
        *,
        with_key: bool = False,
        value: Hint = UNSET,
        store: StoreOption = None,
        name: str | None = None,
    ) -> KTable[K, Any]:
        """Replace each row by `mapper(value)`, or by `mapper(key, value)` with `with_key=True`; deletes stay deletes.

        >>> from streamlib.testing import run_stream
        >>> run_stream(lambda s: s.to_table().map_values(lambda value: value * 10).to_stream(), [("a", 1)])
        [('a', 10)]
        """
        function, serde = user_function(mapper, "map_values"), serde_of(value, self._point.value, returns(mapper))
        spec = self._derived_spec("map_values", store, serde)
        operator = op.TableMapValues(self._point.node, function, with_key, None if spec is None else spec.name)
        return self._derived("KTABLE-MAPVALUES-", operator, spec, name, value=serde)

    def transform_values(
        self,
        supplier: Callable[[], ValueTransformer[K, V, VR]],
        *stores: str | StoreSpec,
        value: Hint = UNSET,
        store: StoreOption = None,
        name: str | None = None,
    ) -> KTable[K, VR]:
        """Replace each row by what an object of your own makes of it, with the help of stores.

        Unlike the mapper of `map_values` it is called for deletes too, with None, and a row it makes of one stays.

        Args:
            supplier: makes a transformer for each task, such as its class: `transform(key, value)`, `init(context)`.
            stores: the stores it uses: names of added ones, or specs, which are added.
            value: the type of the rows it makes.
            store: keep the rows it makes in a store of this name, or as `Materialized` says. Without one, each look-up
                transforms a row anew, by another transformer.
            name: of the node.

        >>> from streamlib import Stores, StreamsBuilder
        >>> class Numbered:
        ...     def init(self, context):
        ...         self.revisions = context.state_store("revisions")
        ...     def transform(self, key, value):
        ...         self.revisions.put(key, (self.revisions.get(key) or 0) + 1)
        ...         return None if value is None else f"{value}#{self.revisions.get(key)}"
        >>> revisions = Stores.key_value_store("revisions", key=str, value=int)
        >>> users = StreamsBuilder().table("users", key=str, value=str)
        >>> numbered = users.transform_values(Numbered, revisions, store="numbered")
        """
        function = transformer_supplier(supplier, "transform_values")
        serde = serde_of(value, self._point.value, returns(getattr(supplier, "transform", supplier)))
        spec = self._derived_spec("transform_values", store, serde)
        operator = op.TableTransformValues(self._point.node, function, None if spec is None else spec.name)
        brought = supplied_stores(supplier, "transform_values")
        used = tuple(dict.fromkeys(store_name(self._point, each) for each in (*stores, *brought)))
        return self._derived("KTABLE-TRANSFORMVALUES-", operator, spec, name, used, value=serde)

    def suppress(self, suppressed: Suppressed, *, name: str | None = None) -> KTable[K, V]:
        """Hold changes back, and pass fewer on: the last one of each window or of a span of time.

        What waits is kept in the store `<name>-store`.

        Args:
            suppressed: for how long, and in how large a buffer.
            name: of the node.

        Raises:
            TopologyError: until windows close, but the keys are not windowed, or their windows are not known; or the
                table has versions.

        >>> from datetime import timedelta
        >>> from streamlib import BufferConfig, Suppressed
        >>> from streamlib.testing import run_stream
        >>> hourly = Suppressed.until_time_limit(timedelta(hours=1), BufferConfig.max_records(1))
        >>> run_stream(lambda s: s.to_table().suppress(hourly).to_stream(), [("a", 1), ("a", 2), ("b", 3)])
        [('a', 2)]
        """
        # A given name uses no number up here, unlike elsewhere (`KTableImpl.suppress`).
        if name is not None:
            check_topic_name(name, "a node")
        builder = self._point.builder
        if builder.history_ms(self._point.node) is not None:
            raise TopologyError(
                f"suppress: table {self._point.node} has versions, and a version that comes late cannot wait for its "
                "turn: leave history_retention= out of the store it is made from"
            )
        node = builder.name("KTABLE-SUPPRESS-") if name is None else name
        buffer = builder.store_name("KTABLE-SUPPRESS-", None if name is None else f"{name}-store")
        operator = suppression(self._point, suppressed, buffer)
        builder.add_store(suppressed.buffer.spec(buffer, self._point.key, self._point.value))
        self._send_old_values(force=True)  # of a key that waits, look-ups below see the row before
        point = self._point.then(node, operator, buffer)
        return KTable(point, parents=(self,), buffer=buffer)

    # -- Several tables ----------------------------------------------------------------------------------------------

    def group_by(
        self,
        selector: Callable[[K, V], tuple[K2 | None, V2 | None] | None],
        *,
        key: Hint = UNSET,
        value: Hint = UNSET,
        name: str | None = None,
    ) -> KGroupedTable[K2, V2]:
        """Group the rows by new keys: `selector(key, value)` gives the group's key and the value to fold.

        Goes through the repartition topic `<application_id>-<name>-repartition`. A row for which there is no pair, or
        one of the two is None, belongs to no group.

        Args:
            selector: has to give the same for the same row; it is asked again when the row changes or goes.
            key: the group keys' type.
            value: the values' type.
            name: of the repartition topic and the node.

        >>> from streamlib import StreamsBuilder
        >>> users = StreamsBuilder().table("users", key=str, value=str)
        >>> per_city = users.group_by(lambda user, city: (city, user), name="by-city").count(store="per-city")
        """
        from streamlib.dsl.table_grouped import KGroupedTable

        operator = op.TableSelect(user_function(selector, "group_by"))
        returned = returns_pair(selector)
        point = self._point.then(
            self._point.builder.name("KTABLE-SELECT-", name),
            operator,
            key=serde_of(key, self._point.key, returned[0]),
            value=serde_of(value, self._point.value, returned[1]),
        )
        self._send_old_values(force=True)
        return KGroupedTable(point, name)

    @overload
    def join(
        self,
        other: KTable[K, VO],
        joiner: Callable[[V, VO], VR],
        *,
        result: Hint = ...,
        store: StoreOption = ...,
        name: str | None = ...,
    ) -> KTable[K, VR]: ...
    @overload
    def join(
        self,
        other: KTable[K2, VO],
        joiner: Callable[[V, VO], VR],
        *,
        foreign_key: Callable[[V], K2 | None],
        other_partitioner: Partitioner | None = ...,
        result: Hint = ...,
        store: StoreOption = ...,
        name: str | None = ...,
    ) -> KTable[K, VR]: ...
    @overload
    def join(
        self,
        other: KTable[K2, VO],
        joiner: Callable[[V, VO], VR],
        *,
        foreign_key: Callable[[K, V], K2 | None],
        foreign_key_with_key: Literal[True],
        other_partitioner: Partitioner | None = ...,
        result: Hint = ...,
        store: StoreOption = ...,
        name: str | None = ...,
    ) -> KTable[K, VR]: ...
    def join(
        self,
        other: KTable[Any, VO],
        joiner: Callable[[V, Any], VR],
        *,
        foreign_key: Callable[..., Any] | None = None,
        foreign_key_with_key: bool = False,
        other_partitioner: Partitioner | None = None,
        result: Hint = UNSET,
        store: StoreOption = None,
        name: str | None = None,
    ) -> KTable[K, VR]:
        """A table of `joiner(left, right)` for each key that both tables have; changes when either does.

        With `foreign_key=` the right row is not that of the same key, but the one that the left row names. Rows then
        travel through internal topics, so any numbers of partitions will do.

        Args:
            other: both tables need the same number of partitions, unless they are joined by foreign key.
            joiner: makes the row.
            foreign_key: takes the key of the right row from a left row; None if it has none.
            foreign_key_with_key: `foreign_key` gets the left row's key, too, and first.
            other_partitioner: how the topic of `other` is partitioned, if not by the hash of its keys: f(topic, foreign
                key, None, number of partitions).
            result: the type of its results.
            store: keep the rows in a store of this name, or as `Materialized` says. Without one they are joined when
                something looks them up.
            name: of the node where both sides meet; joined by foreign key, what names of nodes and topics begin with.

        >>> from streamlib import StreamsBuilder
        >>> builder = StreamsBuilder()
        >>> names = builder.table("names", key=str, value=str)
        >>> cities = builder.table("cities", key=str, value=str)
        >>> where = names.join(cities, lambda name, city: f"{name}, {city}", store="where")

        >>> builder = StreamsBuilder()
        >>> orders = builder.table("orders", key=str, value=str)  # such as "ann:book"
        >>> users = builder.table("users", key=str, value=str)
        >>> who = orders.join(
        ...     users, lambda order, user: f"{user}: {order}", foreign_key=lambda order: order.split(":")[0], name="who"
        ... )
        """
        how, foreign = ("join", False, False), (foreign_key, foreign_key_with_key, other_partitioner)
        return self._join(other, joiner, how, (result, store, name), foreign)

    @overload
    def left_join(
        self,
        other: KTable[K, VO],
        joiner: Callable[[V, VO | None], VR],
        *,
        result: Hint = ...,
        store: StoreOption = ...,
        name: str | None = ...,
    ) -> KTable[K, VR]: ...
    @overload
    def left_join(
        self,
        other: KTable[K2, VO],
        joiner: Callable[[V, VO | None], VR],
        *,
        foreign_key: Callable[[V], K2 | None],
        other_partitioner: Partitioner | None = ...,
        result: Hint = ...,
        store: StoreOption = ...,
        name: str | None = ...,
    ) -> KTable[K, VR]: ...
    @overload
    def left_join(
        self,
        other: KTable[K2, VO],
        joiner: Callable[[V, VO | None], VR],
        *,
        foreign_key: Callable[[K, V], K2 | None],
        foreign_key_with_key: Literal[True],
        other_partitioner: Partitioner | None = ...,
        result: Hint = ...,
        store: StoreOption = ...,
        name: str | None = ...,
    ) -> KTable[K, VR]: ...
    def left_join(
        self,
        other: KTable[Any, VO],
        joiner: Callable[[V, Any], VR],
        *,
        foreign_key: Callable[..., Any] | None = None,
        foreign_key_with_key: bool = False,
        other_partitioner: Partitioner | None = None,
        result: Hint = UNSET,
        store: StoreOption = None,
        name: str | None = None,
    ) -> KTable[K, VR]:
        """As `join`, for each key that this table has; without a row on the right, that side is None.

        >>> from streamlib import StreamsBuilder
        >>> builder = StreamsBuilder()
        >>> names = builder.table("names", key=str, value=str)
        >>> cities = builder.table("cities", key=str, value=str)
        >>> where = names.left_join(cities, lambda name, city: f"{name}, {city or 'somewhere'}")
        """
        how, foreign = ("left_join", True, False), (foreign_key, foreign_key_with_key, other_partitioner)
        return self._join(other, joiner, how, (result, store, name), foreign)

    def outer_join(
        self,
        other: KTable[K, VO],
        joiner: Callable[[V | None, VO | None], VR],
        *,
        result: Hint = UNSET,
        store: StoreOption = None,
        name: str | None = None,
    ) -> KTable[K, VR]:
        """As `join`, for each key that one of the tables has; the side without a row is None.

        >>> from streamlib import StreamsBuilder
        >>> builder = StreamsBuilder()
        >>> stock = builder.table("stock", key=str, value=int)
        >>> ordered = builder.table("ordered", key=str, value=int)
        >>> left = stock.outer_join(ordered, lambda has, needs: (has or 0) - (needs or 0))
        """
        return self._join(other, joiner, ("outer_join", True, True), (result, store, name))

    # -- Back to streams ---------------------------------------------------------------------------------------------

    @overload
    def to_stream(self, *, name: str | None = ...) -> KStream[K, V]: ...
    @overload
    def to_stream(
        self, selector: Callable[[K, V], K2], *, key: Hint = ..., name: str | None = ...
    ) -> KStream[K2, V]: ...
    def to_stream(
        self, selector: Callable[[K, V], Any] | None = None, *, key: Hint = UNSET, name: str | None = None
    ) -> KStream[Any, V]:
        """The new value of each change as a stream, deletes as None; under `selector(key, value)` if one is given.

        >>> from streamlib.testing import run_stream
        >>> run_stream(lambda s: s.to_table().to_stream(), [("a", 1), ("a", None)])
        [('a', 1), ('a', None)]
        """
        node = self._point.builder.name("KTABLE-TOSTREAM-", name)
        stream: KStream[Any, V] = KStream(self._point.then(node, op.TableToStream()))
        return stream if selector is None else stream.select_key(selector, key=key)

    def _join(
        self,
        other: KTable[K, Any],
        joiner: Callable[..., Any],
        how: tuple[str, bool, bool],
        options: tuple[Hint, StoreOption, str | None],
        foreign: tuple[Callable[..., Any] | None, bool, Partitioner | None] = (None, False, None),
    ) -> KTable[K, Any]:
        from streamlib.dsl.foreign_key import ForeignKeyOptions, join_by_foreign_key
        from streamlib.dsl.table_joins import TableJoinOptions, join_tables

        step, left_outer, right_outer = how
        result, store, name = options
        function = user_function(joiner, step)
        extractor, with_key, partitioner = foreign
        if extractor is not None:
            how_by_key = ForeignKeyOptions(step, left_outer, function, extractor, with_key, partitioner, *options)
            return join_by_foreign_key(self, other, how_by_key)
        if with_key or partitioner is not None:
            raise TopologyError(f"{step}: foreign_key_with_key= and other_partitioner= go with foreign_key=")
        return join_tables(self, other, TableJoinOptions(step, function, left_outer, right_outer, result, store, name))

    def _filter(
        self, predicate: Callable[[K, V], object], negate: bool, store: StoreOption, name: str | None
    ) -> KTable[K, V]:
        spec = self._derived_spec("filter", store, self._point.value)
        operator = op.TableFilter(self._point.node, predicate, negate, None if spec is None else spec.name)
        # Where old values cost nothing, deletes of rows that never passed are left out (constructor of `KTableFilter`).
        silent = self._send_old_values(force=False)
        table: KTable[K, V] = self._derived("KTABLE-FILTER-", operator, spec, name)
        if silent:
            self._point.builder.send_old_values(table._point.node)
        return table

    def _derived_spec(self, step: str, store: StoreOption, value: Serde[Any]) -> StoreSpec | None:
        """The store of a table made from this one, if it is to have one."""
        if store is None:
            return None
        materialized = Materialized.of(store)
        if materialized.name is None:
            raise TopologyError(
                f"{step}: store=Materialized(...) needs a name here; without store= rows are worked out when needed"
            )
        return materialized.table_spec(materialized.name, self._point.key, value)

    def _derived(
        self,
        prefix: str,
        operator: op.Operator,
        store: StoreSpec | None,
        name: str | None,
        used: tuple[str, ...] = (),
        **changes: Any,
    ) -> KTable[K, Any]:
        own = () if store is None else (store.name,)
        point = self._point.then(self._point.builder.name(prefix, name), operator, *used, *own, **changes)
        if store is not None:
            point.builder.add_store(store)
        return KTable(point, *own, parents=(self,))
