"""What the gateway counts, and /metrics: `freehold_*` names with the `vllm:*` aliases of routers.

Counts and times only: no prompt, no key, and no label a client can choose freely (a model's name is
a label only once a worker has answered for it). Read `app.py` next.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator

from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram, generate_latest
from prometheus_client.core import (
    CounterMetricFamily,
    GaugeMetricFamily,
    Metric,
)
from prometheus_client.registry import Collector

from freehold.rpc.v1.orchestrator_pb2 import OrchestratorStats

CONTENT_TYPE = "text/plain; version=0.0.4; charset=utf-8"
_MODEL = ["model_name"]
_FIRST = (0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10, 20, 40, 80, 160)
_NEXT = (0.005, 0.01, 0.02, 0.03, 0.05, 0.075, 0.1, 0.15, 0.2, 0.4, 1, 2.5, 10)
_WHOLE = (0.1, 0.25, 0.5, 1, 2.5, 5, 10, 20, 40, 80, 160, 320, 640)

# Our name → the name that vLLM's routers and dashboards read.
ALIASES = {
    "freehold_time_to_first_token_seconds": "vllm:time_to_first_token_seconds",
    "freehold_inter_token_latency_seconds": "vllm:inter_token_latency_seconds",
    "freehold_e2e_request_latency_seconds": "vllm:e2e_request_latency_seconds",
    "freehold_prompt_tokens": "vllm:prompt_tokens",
    "freehold_output_tokens": "vllm:generation_tokens",
    "freehold_num_requests_running": "vllm:num_requests_running",
    "freehold_num_requests_waiting": "vllm:num_requests_waiting",
    "freehold_worker_draft_tokens": "vllm:spec_decode_num_draft_tokens",
    "freehold_worker_accepted_tokens": "vllm:spec_decode_num_accepted_tokens",
    "freehold_kv_cache_usage_ratio": "vllm:kv_cache_usage_perc",
}


class Metrics:
    """One a gateway, with a registry of its own."""

    def __init__(self) -> None:
        self._registry = registry = CollectorRegistry(auto_describe=False)
        self._house = _House()
        self._requests = Counter(
            "freehold_http_requests",
            "Requests by route and status (WebSocket requests too).",
            ["route", "status"],
            registry=registry,
        )
        self.num_streams = 0
        Gauge(
            "freehold_gateway_streams", "Streams open at this gateway.", registry=registry
        ).set_function(lambda: self.num_streams)
        self._first = Histogram(
            "freehold_time_to_first_token_seconds",
            "From the request's arrival to its first token.",
            _MODEL,
            buckets=_FIRST,
            registry=registry,
        )
        self._next = Histogram(
            "freehold_inter_token_latency_seconds",
            "Between two tokens of one stream.",
            _MODEL,
            buckets=_NEXT,
            registry=registry,
        )
        self._whole = Histogram(
            "freehold_e2e_request_latency_seconds",
            "From a request's arrival to its end, of those that finished.",
            _MODEL,
            buckets=_WHOLE,
            registry=registry,
        )
        self._prompt = Counter(
            "freehold_prompt_tokens", "Prompt tokens.", _MODEL, registry=registry
        )
        self._cached = Counter(
            "freehold_cached_prompt_tokens",
            "Prompt tokens found in a prefix cache.",
            _MODEL,
            registry=registry,
        )
        self._output = Counter(
            "freehold_output_tokens", "Generated tokens.", _MODEL, registry=registry
        )
        self._finished = Counter(
            "freehold_choices_finished",
            "Answers by the reason they ended.",
            ["model_name", "finish_reason"],
            registry=registry,
        )
        registry.register(self._house)

    def request(self, route: str, status: int) -> None:
        """`route` is one of ours, never the path a client sent."""
        self._requests.labels(route, str(status)).inc()

    def generation_started(self, num_streams: int) -> None:
        self.num_streams += num_streams

    def generation_ended(self, num_streams: int) -> None:
        self.num_streams -= num_streams

    def first_token(self, model: str, seconds: float) -> None:
        self._first.labels(model).observe(seconds)

    def next_token(self, model: str, seconds: float) -> None:
        self._next.labels(model).observe(seconds)

    def tokens(self, model: str, num_prompt: int, num_cached: int, num_output: int) -> None:
        self._prompt.labels(model).inc(num_prompt)
        self._cached.labels(model).inc(num_cached)
        self._output.labels(model).inc(num_output)

    def finished(self, model: str, reasons: Iterable[str], seconds: float) -> None:
        self._whole.labels(model).observe(seconds)
        for reason in reasons:
            self._finished.labels(model, reason).inc()

    def render(self, stats: OrchestratorStats | None) -> bytes:
        """The exposition text; `stats` None: the orchestrator does not answer."""
        self._house.stats = stats
        return generate_latest(_Aliased(self._registry))


class _House(Collector):
    """The orchestrator's snapshot as metrics."""

    def __init__(self) -> None:
        self.stats: OrchestratorStats | None = None

    def collect(self) -> Iterator[Metric]:
        stats = self.stats
        yield _gauge("freehold_orchestrator_up", "1: it answers.", float(stats is not None))
        if stats is None:
            return
        workers = stats.workers
        num_blocks = sum(w.num_blocks for w in workers)
        num_free = sum(w.num_free_blocks for w in workers)
        yield _gauge("freehold_num_workers", "Workers registered.", len(workers))
        yield _gauge(
            "freehold_num_requests_running",
            "Requests being computed.",
            sum(w.num_running for w in workers),
        )
        yield _gauge(
            "freehold_num_requests_waiting",
            "Requests admitted or queued but not yet computed.",
            stats.num_queued + sum(w.num_waiting for w in workers),
        )
        yield _gauge(
            "freehold_kv_cache_usage_ratio",
            "Used part of all workers' KV blocks, 0 to 1.",
            1.0 - num_free / num_blocks if num_blocks else 0.0,
        )
        for name, value in (
            ("requests", stats.requests_total),
            ("rejected", stats.rejected_total),
            ("redispatches", stats.redispatches_total),
            ("worker_deaths", stats.worker_deaths_total),
        ):
            yield CounterMetricFamily(
                f"freehold_orchestrator_{name}", "As the orchestrator counts.", float(value)
            )
        yield from _worker_metrics(stats)


_WORKER_GAUGES = ("num_running", "num_waiting", "num_blocks", "num_free_blocks", "resident_bytes")
_WORKER_COUNTERS = (
    "output_tokens",
    "preemptions",
    "steps",
    "step_seconds",
    "draft_tokens",
    "accepted_tokens",
)


def _worker_metrics(stats: OrchestratorStats) -> Iterator[Metric]:
    for name in _WORKER_GAUGES:
        gauge = GaugeMetricFamily(f"freehold_worker_{name}", "Of one worker.", labels=["worker"])
        for worker in stats.workers:
            gauge.add_metric([worker.worker_id], float(getattr(worker, name)))
        yield gauge
    for name in _WORKER_COUNTERS:
        counter = CounterMetricFamily(
            f"freehold_worker_{name}", "Of one worker.", labels=["worker"]
        )
        for worker in stats.workers:
            counter.add_metric([worker.worker_id], float(getattr(worker, f"{name}_total")))
        yield counter


def _gauge(name: str, text: str, value: float) -> GaugeMetricFamily:
    return GaugeMetricFamily(name, text, value)


class _Aliased(CollectorRegistry):
    """A registry's metrics, those of `ALIASES` once more under their other name."""

    def __init__(self, source: CollectorRegistry) -> None:
        super().__init__()
        self._source = source

    def collect(self) -> Iterator[Metric]:
        for metric in self._source.collect():
            yield metric
            if (alias := ALIASES.get(metric.name)) is not None:
                yield _renamed(metric, alias)


def _renamed(metric: Metric, name: str) -> Metric:
    copy = Metric(name, f"Alias of {metric.name}.", metric.type, metric.unit)
    for sample in metric.samples:
        copy.samples.append(sample._replace(name=name + sample.name.removeprefix(metric.name)))
    return copy
