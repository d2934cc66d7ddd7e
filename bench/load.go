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
	"time"
)

// sample is what one load run saw.
type sample struct {
	Requests  int           `json:"requests"`
	Errors    int           `json:"errors"`
	Elapsed   time.Duration `json:"elapsed"`
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

// closedLoop sends requests over conns kept connections for duration, each
// connection the next request as soon as it has the answer. Connection i
// sends requests[i], requests[i+conns], ... in turn. Any status but 200 is an
// error, as is a broken connection, which ends the run.
//
// The requests are bytes made before, and the answer is read with as little
// work as HTTP/1.1 allows: the generator shares the machine with what it
// measures.
func closedLoop(ctx context.Context, address string, conns int, duration time.Duration, requests [][]byte) (*sample, error) {
	ctx, cancel := context.WithTimeout(ctx, duration)
	defer cancel()
	parts := make([]sample, conns)
	errs := make([]error, conns)
	start := time.Now()
	var wg sync.WaitGroup
	for i := range conns {
		wg.Go(func() { errs[i] = oneConnection(ctx, address, requests, i, conns, &parts[i]) })
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

func oneConnection(ctx context.Context, address string, requests [][]byte, first, step int, s *sample) error {
	conn, err := net.Dial("tcp", address)
	if err != nil {
		return err
	}
	defer conn.Close()
	answers := bufio.NewReaderSize(conn, 4096)
	s.latencies = make([]time.Duration, 0, 1<<15)
	for n := first; ctx.Err() == nil; n += step {
		sent := time.Now()
		if _, err := conn.Write(requests[n%len(requests)]); err != nil {
			return fmt.Errorf("send: %w", err)
		}
		status, err := readAnswer(answers)
		if err != nil {
			return fmt.Errorf("receive: %w", err)
		}
		s.latencies = append(s.latencies, time.Since(sent))
		s.Requests++
		if status != http.StatusOK {
			s.Errors++
		}
	}
	return nil
}

// readAnswer reads one answer with a Content-Length and returns its status.
func readAnswer(r *bufio.Reader) (int, error) {
	line, err := r.ReadSlice('\n')
	if err != nil {
		return 0, err
	}
	if len(line) < len("HTTP/1.1 200") {
		return 0, errors.New("short status line")
	}
	status, err := strconv.Atoi(string(line[9:12]))
	if err != nil {
		return 0, fmt.Errorf("status line: %w", err)
	}
	length := -1
	for {
		line, err = r.ReadSlice('\n')
		if err != nil {
			return 0, err
		}
		line = bytes.TrimRight(line, "\r\n")
		if len(line) == 0 {
			break
		}
		const header = "Content-Length: "
		if len(line) > len(header) && bytes.EqualFold(line[:len(header)], []byte(header)) {
			if length, err = strconv.Atoi(string(line[len(header):])); err != nil {
				return 0, fmt.Errorf("content length: %w", err)
			}
		}
	}
	if length < 0 {
		return 0, errors.New("answer without Content-Length")
	}
	_, err = io.CopyN(io.Discard, r, int64(length))
	return status, err
}
