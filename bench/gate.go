package main

import (
	"context"
	"fmt"
	"os"
	"slices"
	"time"
)

// openShare of the capacity of the first scenario is the rate of the open loop.
const openShare = 0.4

// measureGate compares the scenarios: closed loop with one token and with many,
// then open loop.
func measureGate(ctx context.Context, o options, s *scene, results *results) error {
	var proxies []*proxy
	defer func() {
		for _, p := range proxies {
			p.stop()
		}
	}()
	for _, sc := range selected(o.only) {
		p, err := startProxy(ctx, s, sc)
		if err != nil {
			return err
		}
		proxies = append(proxies, p)
	}
	var err error
	if results.IdleMemory, err = idleMemory(proxies); err != nil {
		return err
	}

	// 1. Closed loop.
	if results.ManyTokens, err = compare(ctx, o, proxies, o.tokens); err != nil {
		return err
	}
	base := results.ManyTokens[0]
	few := slices.DeleteFunc(slices.Clone(proxies), func(p *proxy) bool { return p.scenario.manyOnly })
	if o.only == "" {
		if results.OneToken, err = compare(ctx, o, few, 1); err != nil {
			return err
		}
		// 2. Open loop.
		rate := openShare * base.median(perSecond)
		if results.OpenLoop, err = compareOpen(ctx, o, few, rate); err != nil {
			return err
		}
	}

	// 3. Where the time goes, out of the comparison: profiling costs too.
	if o.profile == "" {
		return nil
	}
	for _, p := range proxies {
		if p.admin == "" {
			continue
		}
		err := p.writeProfile(ctx, o.profile, p.scenario.name, func(duration time.Duration) error {
			_, err := p.closedLoop(ctx, o.conns, duration, o.tokens)
			return err
		})
		if err != nil {
			return fmt.Errorf("profile %s: %w", p.scenario.name, err)
		}
	}
	return nil
}

// idleMemory is what the proxies hold before the first load, in bytes.
func idleMemory(proxies []*proxy) (map[string]int64, error) {
	held := make(map[string]int64)
	for _, p := range proxies {
		bytes, err := p.memory()
		if err != nil {
			return nil, err
		}
		held[p.scenario.name] = bytes
	}
	return held, nil
}

// compare measures every proxy once in each round.
func compare(ctx context.Context, o options, proxies []*proxy, tokens int) ([]*series, error) {
	all := make([]*series, len(proxies))
	for i, p := range proxies {
		all[i] = &series{Scenario: p.scenario.name}
		if _, err := p.closedLoop(ctx, o.conns, o.warmUp, tokens); err != nil {
			return nil, fmt.Errorf("warm up %s: %w", p.scenario.name, err)
		}
	}
	for round := range o.rounds {
		fmt.Fprintf(os.Stderr, "%d tokens: round %d of %d\n", tokens, round+1, o.rounds)
		for i, p := range proxies {
			m, err := p.closedLoop(ctx, o.conns, o.duration, tokens)
			if err != nil {
				return nil, fmt.Errorf("%s: %w", p.scenario.name, err)
			}
			all[i].Rounds = append(all[i].Rounds, m)
		}
	}
	return all, nil
}

func compareOpen(ctx context.Context, o options, proxies []*proxy, rate float64) ([]*series, error) {
	all := make([]*series, len(proxies))
	for round := range o.rounds {
		fmt.Fprintf(os.Stderr, "%.0f requests a second: round %d of %d\n", rate, round+1, o.rounds)
		for i, p := range proxies {
			m, err := p.measure(func() (*sample, error) {
				return openLoop(ctx, p.address, o.conns, o.duration, rate, inTurn(p.requests))
			})
			if err != nil {
				return nil, fmt.Errorf("%s: %w", p.scenario.name, err)
			}
			if all[i] == nil {
				all[i] = &series{Scenario: p.scenario.name}
			}
			all[i].Rounds = append(all[i].Rounds, m)
		}
	}
	return all, nil
}

// closedLoop loads the proxy with the first tokens sessions, or with tokens it
// never saw.
func (p *proxy) closedLoop(ctx context.Context, conns int, duration time.Duration, tokens int) (measurement, error) {
	next := inTurn(p.requests[:tokens])
	if p.scenario.fresh {
		const fastest = 10_000 // requests a second that need a token each
		sessions := slices.Repeat(p.scene.sessions, int(duration.Seconds()*fastest)/len(p.scene.sessions)+1)
		requests, err := p.makeRequests(sessions)
		if err != nil {
			return measurement{}, err
		}
		next = once(requests)
	}
	return p.measure(func() (*sample, error) { return closedLoop(ctx, p.address, conns, duration, next) })
}

// measure counts what load costs. A request that is not answered with 200
// spoils the comparison, so it is an error.
func (p *proxy) measure(load func() (*sample, error)) (m measurement, err error) {
	before, err := p.cpuTime()
	if err != nil {
		return m, err
	}
	loaded, err := load()
	if err != nil {
		return m, err
	}
	if loaded.Requests == 0 || loaded.Errors > 0 {
		return m, fmt.Errorf("%d of %d requests failed", loaded.Errors, loaded.Requests)
	}
	after, err := p.cpuTime()
	if err != nil {
		return m, err
	}
	m = measurement{
		Requests:  loaded.Requests,
		PerSecond: float64(loaded.Requests) / loaded.Elapsed.Seconds(),
		CPUMicros: float64((after - before).Microseconds()) / float64(loaded.Requests),
		P50Micros: float64(loaded.quantile(0.50).Microseconds()),
		P99Micros: float64(loaded.quantile(0.99).Microseconds()),
	}
	m.MemoryByte, err = p.memory()
	return m, err
}
