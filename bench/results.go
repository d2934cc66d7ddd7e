package main

import (
	"bufio"
	"context"
	"debug/buildinfo"
	"encoding/json"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"strings"
	"time"
)

// results is the results file.
type results struct {
	Time        time.Time         `json:"time"`
	Machine     machine           `json:"machine"`
	Versions    map[string]string `json:"versions"`
	Connections int               `json:"connections"`
	Tokens      int               `json:"tokens"`

	IdleMemory    map[string]int64 `json:"idle_memory_bytes"`
	ManyTokens    []*series        `json:"many_tokens"`
	OneToken      []*series        `json:"one_token,omitempty"`
	OpenLoop      []*series        `json:"open_loop,omitempty"`
	TokenEndpoint *endpointResults `json:"token_endpoint,omitempty"`
}

type machine struct {
	CPUs   int    `json:"cpus"`
	CPU    string `json:"cpu"`
	System string `json:"system"`
}

func newResults(ctx context.Context, s *scene, o options) *results {
	r := &results{
		Time:        time.Now().UTC().Truncate(time.Second),
		Machine:     thisMachine(ctx),
		Connections: o.conns,
		Tokens:      o.tokens,
		Versions: map[string]string{
			"go":         strings.TrimPrefix(runtime.Version(), "go"),
			"postgresql": strings.Replace(firstLine(exec.CommandContext(ctx, pgbenchPath(), "--version")), "pgbench (PostgreSQL)", "PostgreSQL", 1),
			"nginx":      strings.TrimPrefix(firstLine(exec.CommandContext(ctx, "nginx", "-v")), "nginx version: "),
		},
	}
	// That of the proxies: this binary has no Caddy in it.
	if info, err := buildinfo.ReadFile(s.caddy); err == nil {
		for _, module := range info.Deps {
			if module.Path == "github.com/caddyserver/caddy/v2" {
				r.Versions["caddy"] = strings.TrimPrefix(module.Version, "v")
			}
		}
	}
	return r
}

func thisMachine(ctx context.Context) machine {
	return machine{runtime.NumCPU(), cpuModel(), firstLine(exec.CommandContext(ctx, "uname", "-sr"))}
}

func firstLine(cmd *exec.Cmd) string {
	out, err := cmd.CombinedOutput()
	if err != nil {
		return "unknown"
	}
	line, _, _ := strings.Cut(string(out), "\n")
	return line
}

func cpuModel() string {
	file, err := os.Open("/proc/cpuinfo")
	if err != nil {
		return "unknown"
	}
	defer func() { _ = file.Close() }()
	for lines := bufio.NewScanner(file); lines.Scan(); {
		if name, value, ok := strings.Cut(lines.Text(), ":"); ok && strings.TrimSpace(name) == "model name" {
			return strings.TrimSpace(value)
		}
	}
	return "unknown"
}

// writeJSON writes a results file; no name: none.
func writeJSON(name string, results any) error {
	if name == "" {
		return nil
	}
	if err := os.MkdirAll(filepath.Dir(name), 0o755); err != nil {
		return err
	}
	out, err := json.Marshal(results)
	if err != nil {
		return err
	}
	return os.WriteFile(name, append(out, '\n'), 0o644)
}

func readResults[R any](name string) (*R, error) {
	file, err := os.ReadFile(name)
	if err != nil {
		return nil, err
	}
	r := new(R)
	if err := json.Unmarshal(file, r); err != nil {
		return nil, fmt.Errorf("%s: %w", name, err)
	}
	return r, nil
}
