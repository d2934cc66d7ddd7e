package main

import (
	"context"
	"errors"
	"fmt"
	"net"
	"net/url"
	"os"
	"path/filepath"
	"slices"
	"syscall"
	"time"
)

// gateway is where the try-out listens: on this machine only.
type gateway struct {
	address string // http://localhost:8080, the issuer
	port    string
	hosts   []string // loopback addresses of this machine
	admin   string
	jobs    string // the sample APIs
	people  string
	tools   string // the sample MCP server
}

func gatewayFromEnvironment() (*gateway, error) {
	g := &gateway{
		address: firstOf(os.Getenv("GATEWAY_ADDRESS"), "http://localhost:8080"),
		admin:   firstOf(os.Getenv("GATEWAY_ADMIN"), "localhost:2019"),
		jobs:    firstOf(os.Getenv("JOBS_API"), "127.0.0.1:9001"),
		people:  firstOf(os.Getenv("PEOPLE_API"), "127.0.0.1:9002"),
		tools:   firstOf(os.Getenv("TOOLS_API"), "127.0.0.1:9003"),
		hosts:   []string{"127.0.0.1"},
	}
	u, err := url.Parse(g.address)
	if err != nil || u.Scheme != "http" || g.address != "http://"+u.Host {
		return nil, errors.New("GATEWAY_ADDRESS: an address such as http://localhost:8080 is expected, with http and nothing after the port")
	}
	if !slices.Contains([]string{"localhost", "127.0.0.1", "::1"}, u.Hostname()) {
		return nil, fmt.Errorf("GATEWAY_ADDRESS: %s is not this machine. The try-out is reached from here only: use localhost, 127.0.0.1 or [::1]", u.Hostname())
	}
	g.port = firstOf(u.Port(), "80")
	if g.address == "http://"+u.Hostname()+":80" {
		return nil, errors.New("GATEWAY_ADDRESS: leave :80 away; it is the port of http")
	}
	if l, err := net.Listen("tcp", "[::1]:0"); err == nil { // this machine speaks IPv6
		_ = l.Close()
		g.hosts = append(g.hosts, "::1")
	}
	for _, local := range []struct{ name, address string }{{"GATEWAY_ADMIN", g.admin}, {"JOBS_API", g.jobs}, {"PEOPLE_API", g.people}, {"TOOLS_API", g.tools}} {
		host, _, err := net.SplitHostPort(local.address)
		if err != nil || host != "localhost" && (net.ParseIP(host) == nil || !net.ParseIP(host).IsLoopback()) {
			return nil, fmt.Errorf("%s: an address of this machine such as 127.0.0.1:9011 is expected", local.name)
		}
	}
	return g, nil
}

// environment is what Caddyfile.example reads. The connection string stays in
// the environment, so that Caddy's admin API and saved configuration never
// show its password.
func (g *gateway) environment() []string {
	bind := g.hosts[0]
	if len(g.hosts) > 1 {
		bind += " [::1]"
	}
	inherited := slices.DeleteFunc(os.Environ(), func(variable string) bool { return variable == "DATABASE_URL=" }) // empty is not set
	environment := append(inherited, "GATEWAY_ADDRESS="+g.address, "GATEWAY_BIND="+bind, "GATEWAY_ADMIN="+g.admin,
		"JOBS_API="+g.jobs, "PEOPLE_API="+g.people, "TOOLS_API="+g.tools)
	// A user without a home, as in a container: Caddy's own files go with ours.
	if home, err := os.UserHomeDir(); err != nil || !isDir(home) {
		if here, err := filepath.Abs(dataDir); err == nil {
			environment = append(environment, "XDG_DATA_HOME="+here, "XDG_CONFIG_HOME="+here)
		}
	}
	if dsn := os.Getenv("DATABASE_URL"); dsn != "" {
		environment = append(environment, "TRYOUT_DATABASE_URL="+dsn, "DATABASE_URL={env.TRYOUT_DATABASE_URL}")
	}
	return environment
}

func isDir(name string) bool {
	info, err := os.Stat(name)
	return err == nil && info.IsDir()
}

// checkPorts waits a moment for what an earlier run may still be giving up.
func (g *gateway) checkPorts(ctx context.Context) error {
	wanted := []struct{ address, another string }{
		{g.jobs, "JOBS_API=127.0.0.1:9011 make run"},
		{g.people, "PEOPLE_API=127.0.0.1:9012 make run"},
		{g.tools, "TOOLS_API=127.0.0.1:9013 make run"},
		{g.admin, "GATEWAY_ADMIN=localhost:2020 make run"},
	}
	for _, host := range g.hosts {
		wanted = append(wanted, struct{ address, another string }{net.JoinHostPort(host, g.port), "GATEWAY_ADDRESS=http://localhost:8090 make run"})
	}
	ctx, cancel := context.WithTimeout(ctx, 3*time.Second)
	defer cancel()
	for _, w := range wanted {
		if err := waitFree(ctx, w.address); errors.Is(err, syscall.EADDRINUSE) {
			return fmt.Errorf("port in use: something listens on %s already. Stop it, or choose another port:\n\n  %s", w.address, w.another)
		} else if err != nil {
			return fmt.Errorf("cannot listen on %s: %w. Choose another port:\n\n  %s", w.address, err, w.another)
		}
	}
	return nil
}

func waitFree(ctx context.Context, address string) error {
	for {
		l, err := net.Listen("tcp", address)
		if err == nil {
			return l.Close()
		}
		select {
		case <-ctx.Done():
			return err
		case <-time.After(100 * time.Millisecond):
		}
		if !errors.Is(err, syscall.EADDRINUSE) {
			return err
		}
	}
}

// prefix is what a command in another terminal needs in front of it.
func (g *gateway) prefix() string {
	if g.address == "http://localhost:8080" {
		return ""
	}
	return "GATEWAY_ADDRESS='" + g.address + "' "
}
