package main

import (
	"context"
	"flag"
	"fmt"
	"os"
	"os/signal"
	"path/filepath"
	"syscall"
	"time"
)

// options of one run; every load is bounded by rounds * scenarios * duration.
type options struct {
	caddy    string
	conns    int
	sessions int
	rounds   int
	warmUp   time.Duration
	duration time.Duration
	out      string
	only     string
	profile  string
}

func main() {
	var o options
	flag.StringVar(&o.caddy, "caddy", "bin/caddy", "the Caddy binary to measure; all scenarios use it")
	flag.IntVar(&o.conns, "conns", 64, "connections, each with one request at a time")
	flag.IntVar(&o.sessions, "sessions", 1000, "live sessions, each with a token of its own")
	flag.IntVar(&o.rounds, "rounds", 7, "rounds; each measures every scenario once")
	flag.DurationVar(&o.warmUp, "warm-up", 2*time.Second, "load before the first round, not counted")
	flag.DurationVar(&o.duration, "duration", 3*time.Second, "load of one scenario in one round")
	flag.StringVar(&o.out, "out", filepath.Join("artifacts", "bench.json"), "file for the raw figures; empty: none")
	flag.StringVar(&o.only, "only", "", "comma-separated names of scenarios to measure besides the first; empty: all")
	flag.StringVar(&o.profile, "profile", "", "directory for one CPU profile of each scenario, taken after the rounds; empty: none")
	flag.Parse()
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	defer stop()
	if err := run(ctx, o); err != nil {
		fmt.Fprintln(os.Stderr, "bench:", err)
		os.Exit(1)
	}
}

func run(ctx context.Context, o options) error {
	// 1. What the scenarios share.
	s, err := newScene(ctx, o.sessions)
	if err != nil {
		return err
	}
	defer s.close()

	// 2. One gateway for each, all of them idle until their turn comes.
	var gateways []*gateway
	defer func() {
		for _, g := range gateways {
			g.stop()
		}
	}()
	for _, scenario := range selected(o.only) {
		g, err := startGateway(ctx, o.caddy, s, scenario)
		if err != nil {
			return fmt.Errorf("scenario %s: %w", scenario.name, err)
		}
		gateways = append(gateways, g)
	}

	// 3. What they take when nothing happens.
	report := newReport(o, gateways)
	for i, g := range gateways {
		if report.Scenarios[i].IdleMemory, err = residentMemory(g.pid()); err != nil {
			return err
		}
	}

	// 4. Rounds.
	for _, g := range gateways {
		if _, err := g.measure(ctx, o.conns, o.warmUp); err != nil {
			return fmt.Errorf("warm up %s: %w", g.scenario.name, err)
		}
	}
	for round := range o.rounds {
		fmt.Fprintf(os.Stderr, "round %d of %d\n", round+1, o.rounds)
		for i, g := range gateways {
			m, err := g.measure(ctx, o.conns, o.duration)
			if err != nil {
				return fmt.Errorf("%s: %w", g.scenario.name, err)
			}
			report.Scenarios[i].Rounds = append(report.Scenarios[i].Rounds, m)
		}
	}
	report.print(os.Stdout)
	if err := report.write(o.out); err != nil || o.profile == "" {
		return err
	}

	// 5. Where the time goes, out of the comparison: profiling costs too.
	for _, g := range gateways {
		if err := g.writeProfile(ctx, o.conns, o.profile); err != nil {
			return fmt.Errorf("profile %s: %w", g.scenario.name, err)
		}
	}
	return nil
}
