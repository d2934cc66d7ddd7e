GO ?= go
FUZZTIME ?= 20s
SHARE ?= 1

.PHONY: help run login build test lint fuzz bench scale performance chaos reliability xcaddy deps

help: ## this list
	@sed -n 's/^\([a-z]*\):.*## /\1\t/p' $(MAKEFILE_LIST) | expand -t 10

run: deps-postgres build ## the try-out: Postgres, sample APIs, gateway, demo user
	@$(GO) build -o bin/tryout ./examples/tryout
	@exec bin/tryout

login: ## sign in at the try-out with a browser and get a token
	@$(GO) run ./examples/login -gateway "$${GATEWAY_ADDRESS:-http://localhost:8080}"

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

bench: ## the benchmarks, about ten minutes; results in artifacts/bench.json
	$(GO) run ./bench

chaos: ## what a deployment does when its parts fail, about an hour, best as root; SHARE=0.1 repeats less; figures in artifacts/chaos.jsonl
	scripts/deps postgresql pgbouncer faketime iproute2 iptables
	@mkdir -p artifacts && rm -f artifacts/chaos.jsonl
	$(GO) test -count=1 -timeout 3h -parallel 1 -v ./e2e/chaos -long -share $(SHARE) -results $(CURDIR)/artifacts/chaos.jsonl

reliability: ## the figures of docs/reliability.md, from artifacts/chaos.jsonl
	$(GO) test -count=1 ./e2e/chaos -results $(CURDIR)/artifacts/chaos.jsonl -document $(CURDIR)/docs/reliability.md

scale: ## what ten million sessions cost, about half an hour, 25 GB of disk; results in artifacts/scale.json
	$(GO) run ./bench -rows 10000,10000000 -out artifacts/scale.json

performance: ## tables and plots of docs/performance.md and docs/scaling.md, from docs/performance.json and docs/scale.json
	$(GO) run ./bench -draw docs -out docs/performance.json

xcaddy: ## that xcaddy builds this checkout
	scripts/xcaddy

deps: ## what the tests need; installs it on Debian as root
	scripts/deps

# Without a server and without root, caddy-scope downloads one itself.
.PHONY: deps-postgres
deps-postgres:
	@test -n "$$DATABASE_URL" || test "$$(id -u)" != 0 || scripts/deps postgresql
