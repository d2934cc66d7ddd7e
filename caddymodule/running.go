package caddymodule

import (
	"slices"
	"sync"
	"time"

	"github.com/caddyserver/caddy/v2"
	"go.uber.org/zap"
	"go.uber.org/zap/zapcore"

	"github.com/caddy-scope/caddy-scope/postgres"
)

// running are the apps between Start and Cleanup: one, or during a reload two.
// When the new one goes first, its configuration was refused, and the old one
// goes on.
var running runningApps

type runningApps struct {
	mu   sync.Mutex
	apps []*App // the last to start is the last
}

func (r *runningApps) add(a *App) {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.apps = append(r.apps, a)
}

func (r *runningApps) remove(a *App) {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.apps = slices.DeleteFunc(r.apps, func(other *App) bool { return other == a })
}

// Load returns the app of the configuration in force: the last that has started.
// The admin server is made before the apps, so it looks here at request time. Nil:
// there is none.
func (r *runningApps) Load() *App {
	r.mu.Lock()
	defer r.mu.Unlock()
	for _, a := range slices.Backward(r.apps) {
		if a.hasStarted() {
			return a
		}
	}
	return nil
}

// keepEvents sets how long the upkeep keeps the audit trail: as long as any of the
// running configurations wants it that the upkeep works for, and the one that is
// starting. A configuration that is then refused must not have anything removed.
func (r *runningApps) keepEvents(upkeep *postgres.Upkeep, starting *App) {
	r.mu.Lock()
	defer r.mu.Unlock()
	var wanted []time.Duration
	if starting != nil {
		wanted = append(wanted, starting.eventRetention())
	}
	for _, a := range r.apps {
		if a.hasStarted() && a.runtime.upkeep == upkeep {
			wanted = append(wanted, a.eventRetention())
		}
	}
	switch {
	case len(wanted) == 0: // nobody is left to want anything
	case slices.Contains(wanted, 0): // for ever
		upkeep.KeepEvents(0)
	default:
		upkeep.KeepEvents(slices.Max(wanted))
	}
}

// eventRetention is how long the configuration wants the audit trail kept; 0: for
// ever.
func (a *App) eventRetention() time.Duration {
	if a.EventRetention == nil {
		return postgres.DefaultKeepEvents
	}
	return time.Duration(*a.EventRetention)
}

// hasStarted reports whether there is a runtime, which does not change any more.
func (a *App) hasStarted() bool {
	select {
	case <-a.started:
		return a.runtime != nil
	default:
		return false
	}
}

// core is where the lines of what outlives a reload go: to the log of the app that
// was the last to begin its start.
func (r *runningApps) core() zapcore.Core {
	r.mu.Lock()
	defer r.mu.Unlock()
	if len(r.apps) == 0 {
		return caddy.Log().Core()
	}
	return r.apps[len(r.apps)-1].logger.Core()
}

// lastingLogger is the logger of what outlives a reload. The logger of the
// configuration that opened it would write where that one said, to a file that is
// closed since, and at its level.
func lastingLogger() *zap.Logger { return zap.New(&lastingCore{}).Named(appName) }

// lastingCore implements zapcore.Core.
type lastingCore struct{ fields []zapcore.Field }

// Enabled implements zapcore.LevelEnabler.
func (*lastingCore) Enabled(level zapcore.Level) bool { return running.core().Enabled(level) }

// With implements zapcore.Core.
func (c *lastingCore) With(fields []zapcore.Field) zapcore.Core {
	return &lastingCore{append(c.fields[:len(c.fields):len(c.fields)], fields...)}
}

// Check implements zapcore.Core.
func (c *lastingCore) Check(entry zapcore.Entry, checked *zapcore.CheckedEntry) *zapcore.CheckedEntry {
	return running.core().With(c.fields).Check(entry, checked)
}

// Write implements zapcore.Core. Check hands every line to another core.
func (c *lastingCore) Write(entry zapcore.Entry, fields []zapcore.Field) error {
	return running.core().With(c.fields).Write(entry, fields)
}

// Sync implements zapcore.Core.
func (*lastingCore) Sync() error { return running.core().Sync() }
