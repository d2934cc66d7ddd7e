package caddymodule

import (
	"errors"
	"sync"
	"sync/atomic"
	"time"

	"github.com/caddyserver/caddy/v2"
	"go.uber.org/zap"
)

const (
	// lateRequest is how long after a reload the old configuration may still get a
	// request: a client of HTTP/2 or 3 sends until it has heard that the connection
	// takes no more, and one that was read may not have come to its handler.
	lateRequest = time.Second
	// leavingLookEvery is how often it is looked whether the last request has ended:
	// that a request told of its end would cost every one.
	leavingLookEvery = 100 * time.Millisecond
)

// leaving are the configurations that a reload has replaced while their requests
// were in flight. A pool that only they use, as the DSN has changed, would be
// closed under these requests.
var leaving departures

type departures struct {
	mu  sync.Mutex
	all map[*departure]bool
}

// departure is what one configuration has to give back. It holds nothing else of
// it.
type departure struct {
	once sync.Once
	take []func() error
	err  error
}

// later gives back what was taken when no request is in flight any more.
func (d *departures) later(requests *atomic.Int64, taken []func() error) {
	one := &departure{take: taken}
	d.mu.Lock()
	if d.all == nil {
		d.all = make(map[*departure]bool)
	}
	d.all[one] = true
	d.mu.Unlock()
	go func() {
		time.Sleep(lateRequest)
		for requests.Load() > 0 {
			time.Sleep(leavingLookEvery)
		}
		if err := d.end(one); err != nil {
			caddy.Log().Named(appName).Error("give back what the old configuration used", zap.Error(err))
		}
	}()
}

// now is later without waiting, for all: nobody comes after them.
func (d *departures) now() error {
	d.mu.Lock()
	var all []*departure
	for one := range d.all {
		all = append(all, one)
	}
	d.mu.Unlock()
	var errs []error
	for _, one := range all {
		errs = append(errs, d.end(one))
	}
	return errors.Join(errs...)
}

// end returns when all is given back, whoever does it.
func (d *departures) end(one *departure) error {
	one.once.Do(func() {
		one.err = release(one.take)
		d.mu.Lock()
		defer d.mu.Unlock()
		delete(d.all, one)
	})
	return one.err
}
