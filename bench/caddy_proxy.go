package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net/http"
	"os"
	"path/filepath"
	"strings"
	"time"
)

func (p *proxy) startCaddy() (err error) {
	if p.admin, err = freeAddress(); err != nil {
		return err
	}
	config := filepath.Join(p.scene.dir, p.scenario.name+".Caddyfile")
	if err := os.WriteFile(config, []byte(p.caddyfile()), 0o600); err != nil {
		return err
	}
	one, err := start(p.scene.caddy, []string{
		"DATABASE_URL=" + p.scene.dsn, "SIGNING_KEY=" + p.scene.signingKey,
		"OAUTH_SECRET=0123456789abcdef0123456789abcdef0123456789abcdef",
	}, "run", "--config", config, "--adapter", "caddyfile")
	if err != nil {
		return err
	}
	p.running = append(p.running, one)
	return nil
}

func (p *proxy) caddyfile() string {
	var b strings.Builder
	fmt.Fprintf(&b, "{\n\tadmin %s\n\tauto_https off\n\tpersist_config off\n\tstorage file_system %s\n\torder verify_each before reverse_proxy\n",
		p.admin, filepath.Join(p.scene.dir, p.scenario.name))
	if p.scenario.option != "" {
		fmt.Fprintf(&b, `	oauth {
		issuer      http://%s
		postgres    {env.DATABASE_URL}
		secret      {env.OAUTH_SECRET}
		signing_key {env.SIGNING_KEY}
		scope jobs:read          "Search jobs and view job details"
		scope applications:read  "See your applications"
		scope applications:write "Submit applications for you"
		scope resume:read        "Read your resume"
		client %s {
			name         "Bench"
			redirect_uri %s
		}
		login password
		%s
	}
`, p.address, clientID, redirectURI, p.scenario.option)
	}
	upstream := "reverse_proxy " + p.scene.address
	if !p.scenario.defaults {
		upstream += " {\n\t\ttransport http {\n\t\t\tkeepalive_idle_conns_per_host 1024\n\t\t}\n\t}"
	}
	fmt.Fprintf(&b, "}\n\nhttp://%s {\n\tbind 127.0.0.1\n\t%s\n\t%s\n}\n", p.address, p.scenario.site, upstream)
	return b.String()
}

// writeProfile takes a CPU profile while the proxy is loaded.
func (p *proxy) writeProfile(ctx context.Context, dir, name string, load func(time.Duration) error) error {
	const seconds = 5
	if err := os.MkdirAll(dir, 0o755); err != nil {
		return err
	}
	loaded := make(chan error, 1)
	go func() { loaded <- load((seconds + 2) * time.Second) }()
	request, err := http.NewRequestWithContext(ctx, http.MethodGet, fmt.Sprintf("http://%s/debug/pprof/profile?seconds=%d", p.admin, seconds), nil)
	if err != nil {
		return err
	}
	response, err := http.DefaultClient.Do(request)
	if err != nil {
		return err
	}
	defer func() { _ = response.Body.Close() }()
	profile, err := io.ReadAll(response.Body)
	if err != nil {
		return err
	}
	return errors.Join(os.WriteFile(filepath.Join(dir, name+".pprof"), profile, 0o644), <-loaded)
}
