"""A pytest plugin: lets the tests of etcd3 0.12.0 run with libraries of today, unchanged."""

from hypothesis import HealthCheck, settings

register = settings.register_profile


def register_profile(name, **options):
    """Their fixture serves all examples of a test, which Hypothesis now asks about."""
    # Each example calls etcdctl once or twice: fewer of them, the same ones each time.
    options.update(
        suppress_health_check=list(HealthCheck), max_examples=15, derandomize=True, database=None
    )
    register(name, **options)


# The class refuses to be changed by its own means.
type.__setattr__(settings, "register_profile", staticmethod(register_profile))
