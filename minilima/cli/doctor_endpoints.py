"""The checks of `doctor` for endpoints: the key, the address, the list of models, and whether a small request works."""

import os
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

from minilima import environment
from minilima.cli.findings import Finding, Level
from minilima.config.schema import Config, EndpointConfig
from minilima.models.address import address_of
from minilima.models.budget import key_problem, missing_key, shutdown_note
from minilima.models.chat import FAILED, REFUSAL
from minilima.models.masking import PROXIES, masked
from minilima.models.refusals import nearest, tls_fix
from minilima.run.endpoints import endpoints_of
from minilima.run.probe import Probe
from minilima.run.probe import probe as send_probe
from minilima.store.sources import Sources


def examine_endpoint(role: str, config: Config, sources: Sources, *, probe: bool) -> Finding:
    """What one small request shows, where it may be sent and the key can be, else what the list of models shows; and its end."""
    endpoint, model = endpoints_of(config, sources)[role]
    finding = _examined(role, config, sources, probe=probe)
    if (ending := shutdown_note(model, endpoint)) is None:
        return finding
    fix = finding.fix or f"choose another one with {role}.model=… in time"
    level = Level.warn if finding.level == Level.ok else finding.level
    return replace(finding, level=level, says=f"{finding.says.rstrip('.')}. {ending}", fix=fix)


def _examined(role: str, config: Config, sources: Sources, *, probe: bool) -> Finding:
    endpoint, model = endpoints_of(config, sources)[role]
    listed = environment.endpoint_models(address_of(endpoint).base_url, endpoint.api_key_env)
    finding = check_endpoint(role, endpoint, model, *listed)
    refused = listed[1] is None or listed[1].startswith(("HTTP status", "it does not list"))
    if not (probe and refused and model) or missing_key(endpoint) or key_problem(endpoint) or socks_proxies():
        return finding
    return check_probe(role, send_probe(role, config, sources, Path(":memory:"), "doctor"), _key(endpoint), finding)


def check_probe(role: str, result: Probe, key: str, listed: Finding) -> Finding:
    """What one small request showed, in one paragraph; where it was refused, what the list of models shows may say more."""
    name = f"{role} endpoint"
    if result.problem is None:
        level = Level.warn if result.reply is None or result.reply.finish in (FAILED, REFUSAL) else Level.ok
        fix = "" if level == Level.ok else "run the same command again; where it stays so, choose another model"
        begins = listed.says if listed.level == Level.ok else f"{result.address}; {key}"
        return Finding(name=name, level=level, says=f"{begins}. {result.text()}", fix=fix)
    if listed.level == Level.fail:
        return listed
    level = Level.warn if result.is_busy else Level.fail
    return Finding(name=name, level=level, says=result.text(), fix=result.problem.fix)


def socks_proxies() -> list[str]:
    """The environment's variables that name a SOCKS proxy, which is not used."""
    return [name for name in PROXIES if os.environ.get(name, "").lower().startswith("socks")]


def _key(endpoint: EndpointConfig) -> str:
    return f"${endpoint.api_key_env} is {'set' if os.environ.get(endpoint.api_key_env) else 'not set'}"


def check_endpoint(role: str, endpoint: EndpointConfig, model: str | None, listed: Sequence[str], problem: str | None) -> Finding:
    """Key, address and model of an endpoint. Names of keys are shown, values never."""
    name = f"{role} endpoint"
    address = endpoint.base_url or os.environ.get("OPENAI_BASE_URL") or "OpenAI"
    key = _key(endpoint)
    if missing_key(endpoint):
        return Finding(name=name, level=Level.fail, says=f"{address}; {key}", fix=f"export {endpoint.api_key_env}=…")
    if wrong := key_problem(endpoint):
        says = f"{address}; the key in ${endpoint.api_key_env} cannot be sent: {wrong}"
        return Finding(name=name, level=Level.fail, says=says, fix=f"export {endpoint.api_key_env}=… without it")
    if proxies := socks_proxies():
        fix = f"unset {' '.join(proxies)}, or name an HTTP proxy"
        return Finding(name=name, level=Level.fail, says=f"{address}; ${proxies[0]} is a SOCKS proxy, which is not used", fix=fix)
    if os.environ.get("OPENAI_ORG_ID") and problem in ("HTTP status 401", "HTTP status 403", "HTTP status 404"):
        says = f"{address} refuses the request ({problem}); $OPENAI_ORG_ID is sent along"
        fix = "check that the key belongs to that organisation, or unset OPENAI_ORG_ID"
        return Finding(name=name, level=Level.fail, says=says, fix=fix)
    if problem in ("HTTP status 401", "HTTP status 403"):
        fix = f"check the key in ${endpoint.api_key_env}"
        return Finding(name=name, level=Level.fail, says=f"{address} refuses the key ({problem}); {key}", fix=fix)
    if problem is not None and problem.startswith(("HTTP status", "it does not list")):
        says = f"{address} answers, but cannot be asked for its models ({problem}); {key}"
        return Finding(name=name, level=Level.warn, says=says, fix="nothing, if requests are known to work there")
    if problem is not None:
        if (of_tls := tls_fix(problem)) is not None:
            return Finding(name=name, level=Level.fail, says=f"{address} cannot be reached: {problem}", fix=of_tls)
        fix = f"start the server, or correct endpoints.{role}.base_url; a proxy is taken from $HTTPS_PROXY"
        return Finding(name=name, level=Level.fail, says=f"{address} cannot be reached: {problem}", fix=fix)
    if model is not None and model not in listed:
        shown = masked(nearest(model, listed), endpoint.api_key_env) if listed else "it lists none"
        fix = f"choose one of its models with {role}.model=…: {shown}"
        return Finding(name=name, level=Level.fail, says=f"{address} does not list {model}; {key}", fix=fix)
    return Finding(name=name, level=Level.ok, says=f"{address} lists {model or 'its models'}; {key}")
