# Both programs with the shipped models and experiments, on the CPU:
#
#     docker build --build-arg CORE_REVISION=$(git rev-parse HEAD) -t core .
#     docker run --rm -v "$PWD/results:/core/results" core core-train train experiments/spotted-dog.toml
#
# Results belong to the user with the number 1000; give another with `--user`.
FROM rust:1.95-slim-bookworm AS build
RUN apt-get update && apt-get install --yes --no-install-recommends gcc libc6-dev make \
    && rm -rf /var/lib/apt/lists/*
WORKDIR /core
COPY . .
# The sources come without git, so the revision is an argument.
ARG CORE_REVISION
RUN CORE_REVISION=${CORE_REVISION} cargo build --release --locked --package core-train --package core-eval

FROM debian:bookworm-slim
RUN useradd --uid 1000 --create-home core && mkdir -p /core/results && chown core /core/results
COPY --from=build /core/target/release/core-train /core/target/release/core-eval /usr/local/bin/
COPY --from=build /core/LICENSE /core/THIRD-PARTY.md /usr/local/share/doc/core/
# Experiments name models, prompts and concepts by paths relative to themselves.
COPY --from=build /core/experiments /core/experiments
COPY --from=build /core/models /core/models
USER core
WORKDIR /core
CMD ["core-train", "--help"]
