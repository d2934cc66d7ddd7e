package main

import (
	"bufio"
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"slices"
	"strconv"
	"sync"
	"sync/atomic"
	"time"
)

// sample is what one load run saw.
type sample struct {
	Requests  int
	Errors    int
	Elapsed   time.Duration
	latencies []time.Duration
}

// quantile returns the latency that a share q of the requests stayed under.
func (s *sample) quantile(q float64) time.Duration {
	if len(s.latencies) == 0 {
		return 0
	}
	slices.Sort(s.latencies)
	return s.latencies[min(int(q*float64(len(s.latencies))), len(s.latencies)-1)]
}

// source gives the bytes of the next request; nil: there is none left. Safe for
// concurrent use.
type source func() []byte

// inTurn repeats the requests without end.
func inTurn(requests [][]byte) source {
	var n atomic.Int64
	return func() []byte { return requests[int(n.Add(1)-1)%len(requests)] }
}

// once gives every request once.
func once(requests [][]byte) source {
	var n atomic.Int64
	return func() []byte {
		if i := int(n.Add(1) - 1); i < len(requests) {
			return requests[i]
		}
		return nil
	}
}

// closedLoop sends requests over conns kept connections for duration, each
// connection the next request as soon as it has the answer. Any status but 200
// is an error, as is a broken connection, which ends the run.
//
// The requests are bytes made before, and the answer is read with as little
// work as HTTP/1.1 allows: the generator shares the machine with what it
// measures.
func closedLoop(ctx context.Context, address string, conns int, duration time.Duration, next source) (*sample, error) {
	ctx, cancel := context.WithTimeout(ctx, duration)
	defer cancel()
	return onConnections(address, conns, func(c *connection, _ int, s *sample) error {
		for ctx.Err() == nil {
			request := next()
			if request == nil {
				return nil
			}
			sent := time.Now()
			if err := s.count(c, request, sent); err != nil {
				return err
			}
		}
		return nil
	})
}

// openLoop sends rate requests a second, whether or not the earlier ones are
// answered: a latency counts from when the request was due, so that a slow
// answer does not hide those that wait behind it.
func openLoop(ctx context.Context, address string, conns int, duration time.Duration, rate float64, next source) (*sample, error) {
	ctx, cancel := context.WithTimeout(ctx, duration+10*time.Second)
	defer cancel()
	start := time.Now().Add(20 * time.Millisecond)
	return onConnections(address, conns, func(c *connection, i int, s *sample) error {
		for n := i; ; n += conns {
			due := start.Add(time.Duration(float64(n) / rate * float64(time.Second)))
			if due.Sub(start) > duration || ctx.Err() != nil {
				return ctx.Err()
			}
			time.Sleep(time.Until(due))
			if err := s.count(c, next(), due); err != nil {
				return err
			}
		}
	})
}

// count sends one request and notes its latency since from.
func (s *sample) count(c *connection, request []byte, from time.Time) error {
	status, _, err := c.exchange(request)
	if err != nil {
		return err
	}
	s.latencies = append(s.latencies, time.Since(from))
	s.Requests++
	if status != http.StatusOK {
		s.Errors++
	}
	return nil
}

// onConnections runs do on conns connections side by side and adds up what
// they saw.
func onConnections(address string, conns int, do func(c *connection, i int, s *sample) error) (*sample, error) {
	parts := make([]sample, conns)
	errs := make([]error, conns)
	start := time.Now()
	var wg sync.WaitGroup
	for i := range conns {
		wg.Go(func() {
			c, err := dial(address)
			if err != nil {
				errs[i] = err
				return
			}
			defer func() { _ = c.conn.Close() }()
			parts[i].latencies = make([]time.Duration, 0, 1<<14)
			errs[i] = do(c, i, &parts[i])
		})
	}
	wg.Wait()
	total := &sample{Elapsed: time.Since(start)}
	for i := range parts {
		total.Requests += parts[i].Requests
		total.Errors += parts[i].Errors
		total.latencies = append(total.latencies, parts[i].latencies...)
	}
	return total, errors.Join(errs...)
}

// connection is a kept HTTP/1.1 connection.
type connection struct {
	conn    net.Conn
	answers *bufio.Reader
	body    []byte
}

func dial(address string) (*connection, error) {
	conn, err := net.Dial("tcp", address)
	if err != nil {
		return nil, err
	}
	return &connection{conn: conn, answers: bufio.NewReaderSize(conn, 4096)}, nil
}

// exchange sends a request and reads an answer with a Content-Length. The body
// is valid until the next call.
func (c *connection) exchange(request []byte) (status int, body []byte, err error) {
	if _, err := c.conn.Write(request); err != nil {
		return 0, nil, fmt.Errorf("send: %w", err)
	}
	line, err := c.answers.ReadSlice('\n')
	if err != nil {
		return 0, nil, fmt.Errorf("receive: %w", err)
	}
	if len(line) < len("HTTP/1.1 200") {
		return 0, nil, errors.New("short status line")
	}
	if status, err = strconv.Atoi(string(line[9:12])); err != nil {
		return 0, nil, fmt.Errorf("status line: %w", err)
	}
	length := -1
	for {
		if line, err = c.answers.ReadSlice('\n'); err != nil {
			return 0, nil, fmt.Errorf("receive: %w", err)
		}
		line = bytes.TrimRight(line, "\r\n")
		if len(line) == 0 {
			break
		}
		const header = "Content-Length: "
		if len(line) > len(header) && bytes.EqualFold(line[:len(header)], []byte(header)) {
			if length, err = strconv.Atoi(string(line[len(header):])); err != nil {
				return 0, nil, fmt.Errorf("content length: %w", err)
			}
		}
	}
	if length < 0 {
		return 0, nil, errors.New("answer without Content-Length")
	}
	c.body = slices.Grow(c.body[:0], length)[:length]
	_, err = io.ReadFull(c.answers, c.body)
	return status, c.body, err
}
