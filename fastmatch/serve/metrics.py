"Figures of a running service, as Prometheus reads them."
import psutil

SECONDS = (.005, .01, .025, .05, .1, .25, .5, 1, 2.5, 5, 10, 30, 60)
SIZES = (1, 2, 4, 8, 16, 32, 64, 128)


class Metrics:
    "Counts requests, batches and what the process holds; each service has its own."
    def __init__(self):
        from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram
        self.registry = CollectorRegistry()
        self.requests = Counter('fastmatch_requests', 'Requests answered.', ['route', 'status'],
                                registry=self.registry)
        self.seconds = Histogram('fastmatch_request_seconds', 'Time to the end of the answer.', ['route'],
                                 buckets=SECONDS, registry=self.registry)
        self.open = Gauge('fastmatch_requests_open', 'Requests that are being answered.',
                          registry=self.registry)
        self.batches = Histogram('fastmatch_batch_listings', 'Listings worked on together.', ['stage'],
                                 buckets=SIZES, registry=self.registry)
        self.waiting = Gauge('fastmatch_waiting_listings', 'Listings that wait.', ['stage'],
                             registry=self.registry)
        self.listings = Gauge('fastmatch_catalogue_listings', 'Listings of the catalogue.',
                              registry=self.registry)
        self.event = Gauge('fastmatch_catalogue_event', 'The last event of the catalogue.',
                           registry=self.registry)
        process = psutil.Process()
        memory = Gauge('fastmatch_memory_bytes', 'Memory of the process that is resident.',
                       registry=self.registry)
        memory.set_function(lambda: process.memory_info().rss)
        files = Gauge('fastmatch_open_files', 'File descriptors of the process.', registry=self.registry)
        if hasattr(process, 'num_fds'): files.set_function(process.num_fds)

    def embedded(self, n_listings: int):
        "A batch went through the encoder."
        self.batches.labels('embed').observe(n_listings)

    def searched(self, n_listings: int):
        "A batch was looked up."
        self.batches.labels('search').observe(n_listings)

    def waits(self, **listings: int):
        "How many listings wait at each stage."
        for stage, count in listings.items(): self.waiting.labels(stage).set(count)

    def answered(self, route: str, status: int, seconds: float):
        "A request came to its end."
        self.requests.labels(route, str(status)).inc()
        self.seconds.labels(route).observe(seconds)

    def text(self) -> bytes:
        "All figures in Prometheus' text format."
        from prometheus_client import generate_latest
        return generate_latest(self.registry)
