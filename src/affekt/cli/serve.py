"""`affekt serve`: recognition by HTTP and WebSocket."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from affekt.cli.recognition_options import Model, Threads
from affekt.errors import BadConfig


def serve(
    model: Model = "default",
    host: Annotated[str, typer.Option(metavar="ADDRESS", help="The address to listen on.")] = "127.0.0.1",
    port: Annotated[int, typer.Option(metavar="PORT", help="The port; 0 for any that is free.")] = 8000,
    workers: Annotated[
        int, typer.Option(metavar="N", min=1, help="Number of processes; each has its own model and its own limits.")
    ] = 1,
    threads: Threads = 1,
    profile: Annotated[
        list[str] | None,
        typer.Option(metavar="ID=FILE", help="A profile made by affekt adapt that requests may name. Repeatable."),
    ] = None,
    allow_host: Annotated[
        list[str] | None,
        typer.Option(metavar="HOST", help="Another name of this service, or * for any: the header Host. Repeatable."),
    ] = None,
    allow_origin: Annotated[
        list[str] | None,
        typer.Option(
            metavar="ORIGIN", help="A site whose pages may use this service, such as https://example.org. Repeatable."
        ),
    ] = None,
    api_key_file: Annotated[
        Path | None, typer.Option(metavar="FILE", help="Require one of the API keys in this file, one per line.")
    ] = None,
    max_body: Annotated[float, typer.Option(metavar="MB", help="Size of a request, in megabytes.")] = 64.0,
    max_duration: Annotated[float, typer.Option(metavar="SECONDS", help="Duration of a recording.")] = 3600.0,
    timeout: Annotated[float, typer.Option(metavar="SECONDS", help="Time for the answer to a request.")] = 120.0,
    queue: Annotated[int, typer.Option(metavar="N", help="Requests that may wait in each process.")] = 32,
    concurrency: Annotated[
        int, typer.Option(metavar="N", help="Requests that each process recognizes at the same time.")
    ] = 2,
    max_streams: Annotated[int, typer.Option(metavar="N", help="WebSocket streams of each process.")] = 8,
    access_log: Annotated[
        bool, typer.Option("--access-log", help="Log each request, without audio and file names.")
    ] = False,
) -> None:
    """Serve recognition by HTTP and WebSocket; see docs/serving.md.

        curl --form file=@hello.wav http://127.0.0.1:8000/v1/recognize

    Requests beyond the limits are refused. Ctrl-C or SIGTERM ends the service after the requests that it has admitted.
    """
    from affekt.extras import need

    need("fastapi", extra="serve", purpose="the service")
    need("prometheus_client", extra="serve", purpose="the service")
    from affekt.serving.run import serve
    from affekt.serving.settings import Limits, ServiceSettings

    limits = Limits(
        max_body=round(max_body * 1e6),
        max_duration=max_duration,
        timeout=timeout,
        queue=queue,
        concurrency=concurrency,
        max_streams=max_streams,
    )
    serve(
        ServiceSettings(
            model=model,
            host=host,
            port=port,
            workers=workers,
            threads=threads,
            profiles=dict(map(_parse_profile, profile or ())),
            hosts=tuple(allow_host or ()),
            origins=tuple(allow_origin or ()),
            key_file=str(api_key_file or ""),
            access_log=access_log,
            limits=limits,
        ),
        on_start=lambda url: print(f"affekt: {model} is served on {url} (Ctrl-C ends the service)", flush=True),
    )


def _parse_profile(text: str) -> tuple[str, str]:
    name, separator, file = text.partition("=")
    if not (name and separator and file):
        raise BadConfig(f"--profile {text!r}: expected ID=FILE, such as call-centre=profile.json")
    return name, file
