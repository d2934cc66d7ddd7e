GO ?= go
FUZZTIME ?= 20s

.PHONY: build test lint fuzz deps

build: ## the complete Caddy, at bin/caddy
	$(GO) build -o bin/caddy ./cmd/caddy

test: deps lint ## everything, with real Postgres, Caddy and Chromium
	scripts/test
	scripts/fuzz $(FUZZTIME)

lint:
	@unformatted=$$(gofmt -l .); test -z "$$unformatted" || { echo "run gofmt on:"; echo "$$unformatted"; exit 1; }
	$(GO) vet ./...
	$(GO) tool staticcheck ./...

fuzz: ## every fuzz target for longer: make fuzz FUZZTIME=10m
	scripts/fuzz $(FUZZTIME)

deps: ## what the tests need; installs it on Debian as root
	scripts/deps
