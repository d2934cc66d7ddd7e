package main

import (
	"context"
	"encoding/json"
	"fmt"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
	"time"
)

// caddyProcess is bin/caddy run, with its log in a file.
type caddyProcess struct {
	command     *exec.Cmd
	environment []string
	logFile     string
	exited      chan struct{}
}

func startCaddy(environment []string) (*caddyProcess, error) {
	c := &caddyProcess{environment: environment, logFile: filepath.Join(dataDir, "caddy.log"), exited: make(chan struct{})}
	log, err := os.OpenFile(c.logFile, os.O_CREATE|os.O_TRUNC|os.O_WRONLY, 0o600)
	if err != nil {
		return nil, err
	}
	defer log.Close()
	c.command = exec.Command(filepath.Join("bin", "caddy"), "run", "--config", caddyfile)
	c.command.Env, c.command.Stdout, c.command.Stderr = environment, log, log
	ownGroup(c.command) // Ctrl-C is for us: we stop it in order
	if err := c.command.Start(); err != nil {
		return nil, fmt.Errorf("start bin/caddy (made by make build): %w", err)
	}
	go func() {
		_ = c.command.Wait()
		close(c.exited)
	}()
	return c, nil
}

func (c *caddyProcess) waitReady(ctx context.Context, address string) error {
	ctx, cancel := context.WithTimeout(ctx, startLimit)
	defer cancel()
	client := &http.Client{Timeout: 2 * time.Second}
	for {
		if r, err := client.Get(address); err == nil {
			_ = r.Body.Close()
			if r.StatusCode == http.StatusOK {
				return nil
			}
		}
		select {
		case <-c.exited:
			return c.failure("Caddy did not start")
		case <-ctx.Done():
			return c.failure("the gateway did not become ready")
		case <-time.After(200 * time.Millisecond):
		}
	}
}

// run runs a caddy command against the running configuration.
func (c *caddyProcess) run(ctx context.Context, input string, args ...string) (string, error) {
	command := exec.CommandContext(ctx, filepath.Join("bin", "caddy"), args...)
	command.Env, command.Stdin = c.environment, strings.NewReader(input)
	out, err := command.CombinedOutput()
	return string(out), err
}

// stop ends Caddy, which ends Postgres.
func (c *caddyProcess) stop() {
	_ = c.command.Process.Signal(syscall.SIGTERM)
	select {
	case <-c.exited:
	case <-time.After(stopLimit):
		_ = c.command.Process.Kill()
		<-c.exited
	}
}

// failure is what happened and what Caddy said about it.
func (c *caddyProcess) failure(what string) error {
	text, _ := os.ReadFile(c.logFile)
	lines := strings.Split(strings.TrimSpace(string(text)), "\n")
	for i := len(lines) - 1; i >= 0; i-- {
		var entry struct{ Level, Msg, Error string }
		if json.Unmarshal([]byte(lines[i]), &entry) == nil && entry.Level == "error" {
			said := strings.TrimPrefix(entry.Msg, "loading initial config: loading new config: ")
			return fmt.Errorf("%s: %s\n\nThe whole log: %s", what, strings.TrimSpace(said+" "+entry.Error), c.logFile)
		}
	}
	return fmt.Errorf("%s. The end of %s:\n%s", what, c.logFile, strings.Join(lines[max(0, len(lines)-10):], "\n"))
}
