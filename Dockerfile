# sdgrpc in a container: any Debian with Python 3.11 or newer as a base, torch for the CPU or for CUDA.
#
#   docker build -t sdgrpc .
#   docker run -p 50051:50051 -v ./models:/models:ro -v ./loras:/loras:ro -v sdgrpc-cache:/cache sdgrpc
#
# The README says more, and how to build with PyTorch's smaller builds for the CPU.
#
# For a build that is the same tomorrow name the base by its digest: --build-arg BASE_IMAGE=debian@sha256:…
# What Python packages it has, to the hash, is what locks/server.txt says.
ARG BASE_IMAGE=debian:bookworm-slim

FROM ${BASE_IMAGE} AS build
RUN apt-get update \
 && apt-get install --yes --no-install-recommends python3 python3-venv ca-certificates \
 && rm -rf /var/lib/apt/lists/*
# `cuda` takes torch as the package index has it, which on x86-64 Linux brings CUDA's libraries; `cpu` takes it
# from TORCH_INDEX_URL where that is given, and never keeps what only a compiler for GPUs needs.
ARG VARIANT=cpu
ARG TORCH_INDEX_URL=
# pip's own settings, for builders behind a mirror.
ARG PIP_INDEX_URL
ARG PIP_CERT
ENV PIP_NO_CACHE_DIR=1 PIP_DISABLE_PIP_VERSION_CHECK=1
RUN python3 -m venv /opt/sdgrpc
WORKDIR /source
COPY locks locks
# The libraries first: their layer outlives every change of the source. Another index has other builds of torch, whose
# hashes no lock here knows: of those the version alone is held, and what only CUDA's build needs is left out.
RUN case "$VARIANT" in cpu|cuda) ;; *) echo "VARIANT is cpu or cuda, not $VARIANT" >&2; exit 1 ;; esac \
 && if [ "$VARIANT" = cpu ] && [ -n "$TORCH_INDEX_URL" ]; then \
      /opt/sdgrpc/bin/pip install --no-deps --index-url "$TORCH_INDEX_URL" "$(sed -nE 's/^(torch==[^ ]+).*/\1/p' locks/server.txt)" \
      && awk '/^[a-z]/ {skip = /^(torch|triton|nvidia-|cuda-)/} !skip' locks/server.txt > locks/chosen.txt; \
    else cp locks/server.txt locks/chosen.txt; fi \
 && /opt/sdgrpc/bin/pip install --no-deps --require-hashes -r locks/chosen.txt -r locks/build.txt
COPY pyproject.toml README.md LICENSE ./
COPY src src
RUN /opt/sdgrpc/bin/pip install --no-deps --no-build-isolation . \
 && if [ "$VARIANT" = cpu ]; then /opt/sdgrpc/bin/pip uninstall --yes --quiet triton; fi \
 && /opt/sdgrpc/bin/pip uninstall --yes --quiet $(sed -nE 's/^([a-z-]+)==.*/\1/p' locks/build.txt | grep -vx packaging) pip \
 && find /opt/sdgrpc -type d \( -name tests -o -name test \) -path '*/site-packages/*/*' -not -path '*/torch/*' -prune -exec rm -rf {} + \
 && rm -rf /opt/sdgrpc/lib/python3*/site-packages/torch/include /opt/sdgrpc/lib/python3*/site-packages/torch/share \
 && cp -r /opt/sdgrpc/lib/python3*/site-packages/sdgrpc/assets/tiny/loras /opt/sdgrpc/loras

FROM ${BASE_IMAGE}
RUN apt-get update \
 && apt-get install --yes --no-install-recommends python3 ca-certificates \
 && rm -rf /var/lib/apt/lists/* \
 && groupadd --gid 10001 sdgrpc \
 && useradd --uid 10001 --gid sdgrpc --no-create-home --home-dir /cache --shell /usr/sbin/nologin sdgrpc \
 && install -d -o sdgrpc -g sdgrpc /models /loras /cache
COPY --from=build /opt/sdgrpc /opt/sdgrpc
# HF_HOME: where models named as on the hub are kept. SDGRPC_LORA_DIR: yours, and those of the embedded model.
# SDGRPC_INSECURE: no TLS and no tokens, so that `docker run` serves at once. Publish the port to this machine alone
# (-p 127.0.0.1:50051:50051), or mount a certificate and tokens: SDGRPC_TLS_CERTIFICATE, _KEY, SDGRPC_TOKEN_FILE.
ENV PATH=/opt/sdgrpc/bin:$PATH \
    HF_HOME=/cache/huggingface \
    PYTHONUNBUFFERED=1 \
    SDGRPC_LORA_DIR=/loras:/opt/sdgrpc/loras \
    SDGRPC_LISTEN=0.0.0.0:50051 \
    SDGRPC_INSECURE=true \
    SDGRPC_METRICS=0.0.0.0:9464
USER sdgrpc
WORKDIR /cache
VOLUME ["/models", "/loras", "/cache"]
EXPOSE 50051 9464
HEALTHCHECK --interval=10s --timeout=5s --start-period=120s CMD ["sdgrpc", "health"]
STOPSIGNAL SIGTERM
ENTRYPOINT ["sdgrpc"]
CMD ["serve"]
