package main

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"net"
	"os"
	"os/exec"
	"syscall"
	"time"

	"github.com/google/uuid"
)

const startLimit = 60 * time.Second

// proxy is what one scenario sends its requests to.
type proxy struct {
	scenario scenario
	scene    *scene
	minter   *minter
	address  string
	admin    string   // Caddy's own API, for profiles; "": not Caddy
	requests [][]byte // one for each session
	running  []*process
}

// process is a started program; what it prints is shown when it fails.
type process struct {
	cmd    *exec.Cmd
	exited chan error
	log    bytes.Buffer
}

func start(name string, env []string, args ...string) (*process, error) {
	p := &process{cmd: exec.Command(name, args...), exited: make(chan error, 1)}
	p.cmd.Env = append(os.Environ(), env...)
	p.cmd.Stdout, p.cmd.Stderr = &p.log, &p.log
	if err := p.cmd.Start(); err != nil {
		return nil, err
	}
	go func() { p.exited <- p.cmd.Wait() }()
	return p, nil
}

func (p *process) stop() {
	_ = p.cmd.Process.Signal(syscall.SIGTERM)
	select {
	case <-p.exited:
	case <-time.After(15 * time.Second):
		_ = p.cmd.Process.Kill()
		<-p.exited
	}
}

func startProxy(ctx context.Context, s *scene, sc scenario) (p *proxy, err error) {
	p = &proxy{scenario: sc, scene: s}
	defer func() {
		if err != nil {
			err = fmt.Errorf("scenario %s: %w%s", sc.name, err, p.stop())
		}
	}()
	if p.minter, err = s.minter(); err != nil {
		return p, err
	}
	if p.address, err = freeAddress(); err != nil {
		return p, err
	}
	if sc.nginx {
		err = p.startNginx()
	} else {
		err = p.startCaddy()
	}
	if err != nil {
		return p, err
	}
	if p.requests, err = p.makeRequests(s.sessions); err != nil {
		return p, err
	}
	return p, p.waitReady(ctx)
}

// stop returns what the processes printed.
func (p *proxy) stop() string {
	var log bytes.Buffer
	for _, one := range p.running {
		one.stop()
		log.WriteString("\n" + one.log.String())
	}
	p.running = nil
	return log.String()
}

// issuer is what the tokens for this proxy name.
func (p *proxy) issuer() string { return "http://" + p.address }

// makeRequests prepares the bytes of one request for each session.
func (p *proxy) makeRequests(sessions []uuid.UUID) ([][]byte, error) {
	requests := make([][]byte, len(sessions))
	for i, session := range sessions {
		user := userID
		if users := p.scene.users; users != nil {
			user = users[i%len(users)]
		}
		token, err := p.minter.token(p.issuer(), session, user)
		if err != nil {
			return nil, err
		}
		requests[i] = fmt.Appendf(nil, "GET /jobs/job-1 HTTP/1.1\r\nHost: %s\r\nUser-Agent: bench\r\nAccept: application/json\r\nAuthorization: Bearer %s\r\n\r\n",
			p.address, token)
	}
	return requests, nil
}

// waitReady asks until a request of the load is answered with 200.
func (p *proxy) waitReady(ctx context.Context) error {
	ctx, cancel := context.WithTimeout(ctx, startLimit)
	defer cancel()
	for {
		loaded, last := closedLoop(ctx, p.address, 1, 20*time.Millisecond, inTurn(p.requests))
		if last == nil {
			if loaded.Requests > 0 && loaded.Errors == 0 {
				return nil
			}
			last = fmt.Errorf("%d of %d requests were refused", loaded.Errors, loaded.Requests)
		}
		for _, one := range p.running {
			select {
			case err := <-one.exited:
				one.exited <- err
				return errors.Join(fmt.Errorf("%s ended at start", one.cmd.Path), err)
			default:
			}
		}
		select {
		case <-ctx.Done():
			return fmt.Errorf("not ready: %w", last)
		case <-time.After(50 * time.Millisecond):
		}
	}
}

// cpuTime and memory are sums over the proxy's processes.
func (p *proxy) cpuTime() (time.Duration, error) { return overProcesses(p.running, cpuTime) }
func (p *proxy) memory() (int64, error)          { return overProcesses(p.running, residentMemory) }

func overProcesses[T time.Duration | int64](running []*process, of func(pid int) (T, error)) (total T, err error) {
	for _, one := range running {
		pids, err := withChildren(one.cmd.Process.Pid)
		if err != nil {
			return 0, err
		}
		for _, pid := range pids {
			value, err := of(pid)
			if err != nil {
				return 0, err
			}
			total += value
		}
	}
	return total, nil
}

func freeAddress() (string, error) {
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		return "", err
	}
	return l.Addr().String(), l.Close()
}
