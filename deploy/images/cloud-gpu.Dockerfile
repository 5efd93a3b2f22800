# Triton on a GPU: NVIDIA's own image with our models, launcher and their packages beside it. From the repository's root:
#   docker build -f deploy/images/cloud-gpu.Dockerfile --build-arg VERSION=... -t hybrid-cloud-gpu:dev .
# after `mkdir -p deploy/images/wheelhouse/cloud-gpu deploy/images/wheelhouse/build`: where these are empty, pip asks an index.
# For the stock vLLM backend give NVIDIA's image with vLLM as BASE, and cloud/README.md's configuration.
ARG BASE=nvcr.io/nvidia/tritonserver:25.09-py3

FROM ${BASE} AS dependencies
ENV PYTHON=python3
COPY deploy/images/wheelhouse/cloud-gpu /wheelhouse
COPY deploy/constraints/cloud-gpu.txt deploy/images/install.sh deploy/images/prune.py /
RUN sh /install.sh /opt/hybrid --require-hashes -r /cloud-gpu.txt \
    && python3 /prune.py cloud-gpu /opt/hybrid/lib/python3.*/site-packages \
    && python3 -m compileall -q --invalidation-mode unchecked-hash -s /opt/hybrid /opt/hybrid/lib

FROM ${BASE} AS builder
ENV PYTHON=python3
COPY deploy/images/wheelhouse/build /wheelhouse
COPY deploy/constraints/build.txt deploy/images/install.sh /
RUN sh /install.sh /build --require-hashes -r /build.txt

FROM builder AS source
COPY pyproject.toml README.md LICENSE /source/
COPY cloud /source/cloud
COPY edge /source/edge
COPY router /source/router
RUN cd /source && /build/bin/hatchling build -t wheel -d /dist \
    && sh /install.sh /opt/hybrid /dist/*.whl \
    && python3 -m compileall -q --invalidation-mode unchecked-hash -s /opt/hybrid /opt/hybrid/lib

FROM ${BASE} AS cloud
ARG VERSION=0.0.0
ARG REVISION=unknown
RUN mkdir -p /etc/hybrid /models
COPY --from=dependencies /opt/hybrid /opt/hybrid
COPY --from=source /opt/hybrid /opt/hybrid
# the launcher finds tritonserver beside its usual folders; its models run on this python3
ENV PATH=/opt/hybrid/bin:/opt/tritonserver/bin:/usr/local/bin:/usr/bin:/bin \
    PYTHONUNBUFFERED=1 \
    PYTHONDONTWRITEBYTECODE=1 \
    HOME=/tmp
WORKDIR /etc/hybrid
USER 10001:10001
STOPSIGNAL SIGTERM
LABEL org.opencontainers.image.title="hybrid-cloud-gpu" \
      org.opencontainers.image.description="One OpenAI-compatible endpoint over a quantized ONNX edge and an NVIDIA Triton cloud: Triton on a GPU" \
      org.opencontainers.image.licenses="Apache-2.0" \
      org.opencontainers.image.version="${VERSION}" \
      org.opencontainers.image.revision="${REVISION}"
EXPOSE 8000 8001 8002
HEALTHCHECK --interval=10s --timeout=4s --start-period=300s --retries=3 \
    CMD ["python", "-m", "router.health_cli", "http://127.0.0.1:8000/v2/health/ready"]
ENTRYPOINT []
CMD ["hybrid", "triton", "--config", "/etc/hybrid/triton.yaml"]
