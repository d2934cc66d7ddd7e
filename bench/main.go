package main

import (
	"context"
	"flag"
	"fmt"
	"os"
	"os/exec"
	"os/signal"
	"path/filepath"
	"syscall"
	"time"
)

// options of one run; every load is bounded by rounds * scenarios * duration.
type options struct {
	conns    int
	tokens   int
	rounds   int
	warmUp   time.Duration
	duration time.Duration
	out      string
	only     string
	profile  string
	endpoint bool
	draw     string
	rows     string
	data     string
	fill     bool
}

func main() {
	if len(os.Args) == 3 && os.Args[1] == jwtServiceCommand {
		exit(serveJWTs(os.Args[2]))
	}
	var o options
	flag.IntVar(&o.conns, "conns", 64, "connections, each with one request at a time")
	flag.IntVar(&o.tokens, "tokens", 10_000, "sessions, each with a token of its own; measured besides a single one")
	flag.IntVar(&o.rounds, "rounds", 21, "rounds; each measures every scenario once")
	flag.DurationVar(&o.warmUp, "warm-up", 2*time.Second, "load before the first round, not counted")
	flag.DurationVar(&o.duration, "duration", time.Second, "load of one scenario in one round")
	flag.StringVar(&o.out, "out", filepath.Join("artifacts", "bench.json"), "the results file; empty: none")
	flag.StringVar(&o.only, "only", "", "comma-separated names of scenarios to measure besides the first, and nothing else; empty: all")
	flag.BoolVar(&o.endpoint, "endpoint-only", false, "measure the token endpoint alone")
	flag.StringVar(&o.profile, "profile", "", "directory for one CPU profile of each Caddy, taken after the rounds; empty: none")
	flag.StringVar(&o.draw, "draw", "", "measure nothing: draw the tables and plots of -out into this directory")
	flag.StringVar(&o.rows, "rows", "", "measure how cost grows with the tables, of two sizes such as 10000,10000000, and nothing else")
	flag.StringVar(&o.data, "data", "", "with -rows: directory where the filled tables are kept for the next run; empty: nowhere")
	flag.BoolVar(&o.fill, "fill", false, "with -rows and -data: fill the tables and measure nothing")
	flag.Parse()
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	defer stop()
	if o.draw != "" {
		exit(draw(o.out, o.draw))
	}
	exit(run(ctx, o))
}

func exit(err error) {
	if err != nil {
		fmt.Fprintln(os.Stderr, "bench:", err)
		os.Exit(1)
	}
	os.Exit(0)
}

func run(ctx context.Context, o options) error {
	if o.rows != "" {
		return runScale(ctx, o)
	}
	// 1. What the scenarios share.
	s, err := newScene(ctx, sceneConfig{sessions: o.tokens})
	if err != nil {
		return err
	}
	defer s.close()
	if err := s.buildCaddy(ctx); err != nil {
		return err
	}
	measured := newResults(ctx, s, o)
	if earlier, err := readResults[results](o.out); err == nil && o.endpoint {
		measured = earlier // of the gate
	}

	// 2. The gate: one proxy for each scenario, all of them idle until their
	// turn comes.
	if !o.endpoint {
		if err := measureGate(ctx, o, s, measured); err != nil {
			return err
		}
	}
	// 3. The token endpoint.
	if o.only == "" {
		if measured.TokenEndpoint, err = measureTokenEndpoint(ctx, o, s); err != nil {
			return fmt.Errorf("token endpoint: %w", err)
		}
	}
	measured.print(os.Stdout)
	return writeJSON(o.out, measured)
}

// buildCaddy builds the binary that every Caddy scenario uses.
func (s *scene) buildCaddy(ctx context.Context) error {
	s.caddy = filepath.Join(s.dir, "caddy")
	out, err := exec.CommandContext(ctx, "go", "build", "-o", s.caddy, "github.com/caddy-scope/caddy-scope/bench/caddy").CombinedOutput()
	if err != nil {
		return fmt.Errorf("build caddy: %w\n%s", err, out)
	}
	return nil
}
