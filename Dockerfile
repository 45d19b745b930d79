# docker build -t detector .
# docker run --rm --gpus all --ipc=host -v "$PWD/runs:/app/runs" detector loss=ssd
#
# --ipc=host: workers of the loader hand images over in shared memory, and a container has 64 MB of
# it by default, which a batch can exceed. The folder mounted on /app/runs has to be writable for
# the user of the image (1000), or add `--user "$(id -u)"`.
FROM python:3.12-slim

ENV PYTHONUNBUFFERED=1 PIP_NO_CACHE_DIR=1 PIP_DISABLE_PIP_VERSION_CHECK=1 HOME=/tmp
WORKDIR /app

# Before the code, so that a change of code does not install everything again.
COPY requirements.txt .
RUN pip install --require-hashes --requirement requirements.txt

COPY . .
ENV PYTHONPATH=/app
RUN useradd --uid 1000 --no-create-home detector \
    && mkdir runs && chown detector runs

USER detector
ENTRYPOINT ["python", "tools/train.py"]
