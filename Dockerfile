FROM python:3.13-slim AS build
WORKDIR /src
COPY pyproject.toml README.md LICENSE constraints.txt ./
COPY pipeline pipeline
RUN python -m venv /opt/veobatch \
  && /opt/veobatch/bin/pip install --no-cache-dir --disable-pip-version-check \
    -c constraints.txt '.[cloud,metrics,notify,postgres]'

FROM python:3.13-slim
RUN useradd --uid 10001 --create-home veobatch && install -d -o veobatch /work
COPY --from=build /opt/veobatch /opt/veobatch
# Caches go to /tmp, so that the root file system may be read-only: --read-only --tmpfs /tmp -v "$PWD:/work"
# The notes of what was submitted outlive the container, in /work.
ENV PATH=/opt/veobatch/bin:$PATH PYTHONDONTWRITEBYTECODE=1 XDG_CACHE_HOME=/tmp/cache XDG_STATE_HOME=/work/.state
USER 10001
WORKDIR /work
# With VEOBATCH_SERVE=0.0.0.0:8080: any answer of the page's server, a refusal too, shows that the run is alive.
HEALTHCHECK --interval=30s --timeout=5s --start-period=20s \
  CMD ["python", "-m", "pipeline.results.live.health"]
ENTRYPOINT ["veobatch"]
CMD ["--help"]
