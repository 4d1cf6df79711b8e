"""Which endpoints an experiment asks."""

from minilima.config.schema import Config, EndpointConfig
from minilima.run.stages import SPECS
from minilima.store.sources import Sources


def endpoints_of(config: Config, sources: Sources) -> dict[str, tuple[EndpointConfig, str | None]]:
    """The endpoints that this experiment asks, with the model's name there: of `generator`, of `judge`."""
    known = {
        "generator": (config.endpoints.generator, config.generator.model),
        "judge": (config.endpoints.judge, next(iter(sources.judge_models(config.judge.model)), None)),
    }
    asked = {spec.asks(config, sources) for spec in SPECS if spec.applies(config, sources)}
    return {who: endpoint for who, endpoint in known.items() if who in asked}
