package caddymodule

import (
	"bytes"
	"context"
	"fmt"
	"os"
	"os/signal"
	"syscall"
	"time"

	"github.com/spf13/cobra"

	"github.com/caddy-scope/caddy-scope/caddymodule/ruletest"
)

func testCommand() *cobra.Command {
	cmd := &cobra.Command{
		Use: "test [FILE...]", Short: "Holds the configuration against files of requests and expectations",
		Long: `
Runs rule tests: each line of a FILE is a request and what is expected of it.

  GET /jobs/1 with jobs:read -> allow
  GET /jobs/1 with resume:read -> 403 insufficient_scope
  GET /jobs/1 without token -> 401
  POST /jobs with jobs:write roles=recruiter -> allow

Beside them it generates cases at the boundaries of every rule: with what it needs
and with one scope less, without a token, with other methods, and in encoded and
odd spellings, none of which may slip past the gate.

Everything goes through Caddy's own routes and the gates themselves, as in explain;
nothing is proxied and no database is asked. What a gate only observes is judged as
if it were refused in earnest.

Exit status: 0 all passed, 2 some failed, 1 it is not known.`,
		Example: "  caddy oauth test rules.test\n  caddy oauth test *.test --junit report.xml\n  caddy oauth test --config Caddyfile.new   # the generated cases only",
		RunE:    testRules,
	}
	flags := cmd.Flags()
	flags.String("junit", "", "Also write the results as JUnit XML to this file")
	flags.Bool("generate", true, "Also run generated cases; --generate=false runs those of the files only")
	return cmd
}

func testRules(cmd *cobra.Command, files []string) error {
	cmd.SilenceUsage = true
	ctx, stop := signal.NotifyContext(cmd.Context(), os.Interrupt, syscall.SIGTERM)
	defer stop()
	config, err := commandConfigJSON(cmd)
	if err != nil {
		return err
	}
	h, err := newRehearsal(config)
	if err != nil {
		return err
	}
	if h.inEarnest = true; h.app.observes() {
		fmt.Fprintln(cmd.ErrOrStderr(), "some gates or rules only observe; they are tested as if in earnest")
	}
	cases, names, err := casesOf(files)
	if err != nil {
		return err
	}
	if generate, _ := cmd.Flags().GetBool("generate"); generate {
		if len(h.app.gates) == 0 {
			return errNoGate
		}
		cases, names = append(cases, h.generatedCases()), append(names, "generated")
	}
	if len(cases) == 0 {
		return fmt.Errorf("nothing to run: name a file of requests, or leave --generate on")
	}
	suites, err := h.runSuites(ctx, newProgress(cmd.ErrOrStderr(), "cases run"), cases, names)
	if err != nil {
		return err
	}
	if file, _ := cmd.Flags().GetString("junit"); file != "" {
		if err := writeJUnit(file, suites); err != nil {
			return err
		}
	}
	if err := ruletest.WriteText(cmd.OutOrStdout(), suites); err != nil {
		return err
	}
	for _, s := range suites {
		if s.Failed() > 0 {
			return exitWith(cmd, exitNo)
		}
	}
	return nil
}

func casesOf(files []string) (cases [][]ruletest.Case, names []string, err error) {
	for _, file := range files {
		opened, err := os.Open(file)
		if err != nil {
			return nil, nil, err
		}
		written, err := ruletest.Parse(file, opened)
		opened.Close()
		switch {
		case err != nil:
			return nil, nil, err
		case len(written) == 0:
			return nil, nil, fmt.Errorf("%s: has no case; a line such as GET /jobs/1 with jobs:read -> allow is one", file)
		}
		cases, names = append(cases, written), append(names, file)
	}
	return cases, names, nil
}

func (h *rehearsal) runSuites(ctx context.Context, progress *progress, cases [][]ruletest.Case, names []string) ([]ruletest.Suite, error) {
	defer progress.done()
	var suites []ruletest.Suite
	n := 0
	for i, list := range cases {
		suite := ruletest.Suite{Name: names[i]}
		for _, c := range list {
			if err := ctx.Err(); err != nil {
				return nil, err
			}
			began := time.Now()
			told, code, err := h.run(c)
			result := ruletest.Result{Case: c, Took: time.Since(began)}
			if err != nil {
				result.Problem = err.Error()
			} else {
				result.Problem = c.Want.Check(told, code)
			}
			suite.Results = append(suite.Results, result)
			n++
			progress.at(n)
		}
		suites = append(suites, suite)
	}
	return suites, nil
}

func writeJUnit(file string, suites []ruletest.Suite) error {
	var text bytes.Buffer
	err := ruletest.WriteJUnit(&text, suites)
	if err == nil {
		err = replaceFile(file, text.Bytes())
	}
	if err != nil {
		return fmt.Errorf("--junit: %w", err)
	}
	return nil
}
