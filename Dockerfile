# The last commit with its packages, without GPU libraries, for any user:
#   docker build --tag cifar2 .
#   docker run --user "$(id -u):$(id -g)" cifar2
#   docker run --volume "$PWD:/here" cifar2 cifar2 predict --model /here/data/models/final.safetensors /here/photo.jpg
FROM debian:trixie-slim AS system
# hadolint ignore=DL3008
RUN apt-get update \
    && apt-get install --yes --no-install-recommends ca-certificates git make python3-venv \
    && rm -rf /var/lib/apt/lists/* \
    && git config --system --add safe.directory /cifar2

FROM system
ENV PATH=/cifar2/.venv/bin:$PATH HOME=/cifar2/.home LOGNAME=cifar2
WORKDIR /cifar2
COPY .git .git

# cpu, or nothing for the packages of PyPI, which have GPU libraries
ARG TORCH=cpu
# In one layer, as a change of permissions copies the files.
RUN git reset --quiet --hard \
    && mkdir .home \
    && UV_NO_CACHE=1 PIP_NO_CACHE_DIR=1 make install TORCH="$TORCH" \
    && chmod --recursive a+rwX /cifar2

CMD ["make", "repro"]
