package postgrestest

import (
	"io"
	"math/rand/v2"
	"net"
	"net/url"
	"sync"
	"testing"
	"time"
)

// Wire is a TCP proxy before a server that fails as networks do. It starts
// sound; every method may be called while connections are open, and concerns
// them as well as later ones.
type Wire struct {
	listenOn string

	mu       sync.Mutex
	changed  chan struct{} // closed, and replaced, when a fault changes
	network  string        // of the server: unix or tcp
	server   string
	listener net.Listener // nil: refusing
	open     map[*wireConn]struct{}
	accepted int
	frozen   [2]bool // by Direction
	lost     bool
	delay    time.Duration
	jitter   time.Duration
	trickle  int // bytes a second; 0: no bound
	resetIn  int // bytes of answers until a reset; -1: never
}

// Direction of bytes on a Wire.
type Direction int

const (
	// ToServer are requests.
	ToServer Direction = iota
	// ToClient are answers.
	ToClient
)

// wireConn is one connection through the wire.
type wireConn struct {
	client, server net.Conn
	cut            chan struct{}
	once           sync.Once
}

// NewWire puts a wire before the server of dsn, at a loopback port, and returns
// the DSN that leads through it.
func NewWire(t testing.TB, dsn string) (*Wire, string) {
	t.Helper()
	return NewWireAt(t, dsn, "127.0.0.1:0")
}

// NewWireAt is NewWire with the address to listen on.
func NewWireAt(t testing.TB, dsn, address string) (*Wire, string) {
	t.Helper()
	w := &Wire{changed: make(chan struct{}), open: make(map[*wireConn]struct{}), resetIn: -1}
	through, err := w.lead(dsn)
	if err != nil {
		t.Fatalf("read the DSN: %v", err)
	}
	listener, err := net.Listen("tcp", address)
	if err != nil {
		t.Fatalf("listen for the wire: %v", err)
	}
	w.listenOn = listener.Addr().String()
	w.serve(listener)
	t.Cleanup(func() { w.Refuse(); w.Cut() })
	host, port, _ := net.SplitHostPort(w.listenOn)
	query := url.Values{"sslmode": {"disable"}}
	through.Host, through.RawQuery = net.JoinHostPort(host, port), query.Encode()
	return w, through.String()
}

// Lead makes later connections go to the server of another DSN.
func (w *Wire) Lead(t testing.TB, dsn string) {
	t.Helper()
	if _, err := w.lead(dsn); err != nil {
		t.Fatalf("read the DSN: %v", err)
	}
}

func (w *Wire) lead(dsn string) (*url.URL, error) {
	u, err := url.Parse(dsn)
	if err != nil {
		return nil, err
	}
	w.mu.Lock()
	defer w.mu.Unlock()
	w.network, w.server = "tcp", u.Host
	if dir := u.Query().Get("host"); dir != "" {
		w.network, w.server = "unix", dir+"/.s.PGSQL."+u.Query().Get("port")
	}
	return u, nil
}

// Address is where the wire listens.
func (w *Wire) Address() string { return w.listenOn }

// Open is how many connections lead through the wire now.
func (w *Wire) Open() int {
	w.mu.Lock()
	defer w.mu.Unlock()
	return len(w.open)
}

// Accepted is how many connections were ever made.
func (w *Wire) Accepted() int {
	w.mu.Lock()
	defer w.mu.Unlock()
	return w.accepted
}

// Freeze holds all bytes that go one of the ways, of every connection; no way
// given: both. Nothing is lost, nothing is closed, and new connections are
// accepted: a stopped machine, or a network that says nothing.
func (w *Wire) Freeze(ways ...Direction) {
	if len(ways) == 0 {
		ways = []Direction{ToServer, ToClient}
	}
	w.set(func() {
		for _, way := range ways {
			w.frozen[way] = true
		}
	})
}

// Lose drops all bytes that go through: the connections are of no use even
// after Heal.
func (w *Wire) Lose() { w.set(func() { w.lost = true }) }

// Delay holds every read's worth of bytes back, each way, by delay plus up to
// jitter.
func (w *Wire) Delay(delay, jitter time.Duration) {
	w.set(func() { w.delay, w.jitter = delay, jitter })
}

// Trickle lets so many bytes a second through, each way of a connection.
func (w *Wire) Trickle(bytesPerSecond int) { w.set(func() { w.trickle = bytesPerSecond }) }

// ResetAfter resets the connection whose answer is the one that reaches so many
// further bytes, in the middle of it.
func (w *Wire) ResetAfter(bytes int) { w.set(func() { w.resetIn = bytes }) }

// Refuse answers new connections with a reset, as REJECT does or a server that
// is not there. Open connections go on.
func (w *Wire) Refuse() {
	w.mu.Lock()
	defer w.mu.Unlock()
	if w.listener != nil {
		_ = w.listener.Close()
		w.listener = nil
	}
}

// Cut closes every connection, both ends, in order.
func (w *Wire) Cut() { w.each(func(c *wireConn) { c.close(false) }) }

// Reset breaks every connection off, both ends.
func (w *Wire) Reset() { w.each(func(c *wireConn) { c.close(true) }) }

// HalfOpen ends every connection at the server; the client is not told, and
// what it sends goes nowhere: a server that vanished from a network.
func (w *Wire) HalfOpen() {
	w.Freeze(ToClient)
	w.each(func(c *wireConn) { _ = c.server.Close() })
}

// HalfClose tells every client that no more answers will come; the server goes
// on reading.
func (w *Wire) HalfClose() {
	w.each(func(c *wireConn) {
		if tcp, ok := c.client.(*net.TCPConn); ok {
			_ = tcp.CloseWrite()
		}
	})
}

// Heal ends every fault. Connections that a fault broke stay broken.
func (w *Wire) Heal(t testing.TB) {
	t.Helper()
	w.set(func() { w.frozen, w.lost, w.delay, w.jitter, w.trickle, w.resetIn = [2]bool{}, false, 0, 0, 0, -1 })
	w.mu.Lock()
	refusing := w.listener == nil
	w.mu.Unlock()
	if !refusing {
		return
	}
	listener, err := net.Listen("tcp", w.listenOn)
	if err != nil {
		t.Fatalf("listen for the wire again: %v", err)
	}
	w.serve(listener)
}

func (w *Wire) set(change func()) {
	w.mu.Lock()
	defer w.mu.Unlock()
	change()
	close(w.changed)
	w.changed = make(chan struct{})
}

func (w *Wire) each(do func(*wireConn)) {
	w.mu.Lock()
	open := make([]*wireConn, 0, len(w.open))
	for c := range w.open {
		open = append(open, c)
	}
	w.mu.Unlock()
	for _, c := range open {
		do(c)
	}
}

func (w *Wire) serve(listener net.Listener) {
	w.mu.Lock()
	w.listener = listener
	w.mu.Unlock()
	go func() {
		for {
			client, err := listener.Accept()
			if err != nil {
				return
			}
			go w.connect(client)
		}
	}()
}

func (w *Wire) connect(client net.Conn) {
	w.mu.Lock()
	network, address := w.network, w.server
	w.accepted++
	w.mu.Unlock()
	server, err := net.Dial(network, address)
	if err != nil {
		// As if the client had dialled the server itself.
		_ = client.(*net.TCPConn).SetLinger(0)
		_ = client.Close()
		return
	}
	c := &wireConn{client: client, server: server, cut: make(chan struct{})}
	w.mu.Lock()
	w.open[c] = struct{}{}
	w.mu.Unlock()
	var ways sync.WaitGroup
	ways.Go(func() { w.pump(c, ToServer, client, server) })
	ways.Go(func() { w.pump(c, ToClient, server, client) })
	ways.Wait()
	c.close(false)
	w.mu.Lock()
	delete(w.open, c)
	w.mu.Unlock()
}

func (c *wireConn) close(reset bool) {
	c.once.Do(func() {
		close(c.cut)
		for _, end := range []net.Conn{c.client, c.server} {
			if tcp, ok := end.(*net.TCPConn); ok && reset {
				_ = tcp.SetLinger(0)
			}
			_ = end.Close()
		}
	})
}

// pump carries one way of a connection. When its source ends, so does the
// connection, as far as no fault keeps the news.
func (w *Wire) pump(c *wireConn, way Direction, from io.Reader, to io.Writer) {
	buffer := make([]byte, 32<<10)
	for {
		n, err := from.Read(buffer)
		if !w.pass(c, way, n) {
			return
		}
		for sent := 0; sent < n; {
			piece, pause, reset, lost := w.piece(way, n-sent)
			select {
			case <-time.After(pause):
			case <-c.cut:
				return
			}
			if !lost {
				if _, err := to.Write(buffer[sent : sent+piece]); err != nil {
					return
				}
			}
			if sent += piece; reset {
				c.close(true)
				return
			}
		}
		if err != nil {
			c.close(false)
			return
		}
	}
}

// pass waits until bytes may go this way, and for their delay; false: the
// connection was cut meanwhile.
func (w *Wire) pass(c *wireConn, way Direction, n int) bool {
	for {
		w.mu.Lock()
		frozen, changed, delay := w.frozen[way], w.changed, w.delay
		if w.jitter > 0 {
			delay += rand.N(w.jitter)
		}
		w.mu.Unlock()
		if !frozen {
			if n == 0 || delay == 0 {
				return true
			}
			select {
			case <-time.After(delay):
				return true
			case <-c.cut:
				return false
			}
		}
		select {
		case <-changed:
		case <-c.cut:
			return false
		}
	}
}

// piece says how many of n bytes go next, and what happens to them.
func (w *Wire) piece(way Direction, n int) (size int, pause time.Duration, reset, lost bool) {
	w.mu.Lock()
	defer w.mu.Unlock()
	size = n
	if w.trickle > 0 {
		const tick = 50 * time.Millisecond
		size = min(size, max(1, w.trickle*int(tick)/int(time.Second)))
		pause = time.Duration(size) * time.Second / time.Duration(w.trickle)
	}
	if way == ToClient && w.resetIn >= 0 {
		if size >= w.resetIn {
			size, reset = max(w.resetIn, 1), true
			w.resetIn = -1
		} else {
			w.resetIn -= size
		}
	}
	return size, pause, reset, w.lost
}
