package e2e

import (
	"context"
	"net"
	"net/http"
	"net/url"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/chromedp/cdproto/cdp"
	"github.com/chromedp/cdproto/emulation"
	"github.com/chromedp/cdproto/page"
	"github.com/chromedp/chromedp"
)

// newChromium opens a tab in a new headless Chromium with an empty profile.
func newChromium(t *testing.T) context.Context {
	t.Helper()
	return newChromiumFor(t, 2*time.Minute)
}

func newChromiumFor(t *testing.T, atMost time.Duration) context.Context {
	t.Helper()
	options := append(chromedp.DefaultExecAllocatorOptions[:],
		chromedp.NoSandbox,
		chromedp.DisableGPU,
		chromedp.NoFirstRun,
		chromedp.UserDataDir(t.TempDir()),
		chromedp.Flag("disable-background-networking", true),
		chromedp.Flag("disable-component-update", true),
		chromedp.Flag("disable-sync", true),
		chromedp.Flag("disable-quic", true),
		chromedp.Flag("disable-features", "Translate,BackForwardCache"), // a page that comes back from there fires no load
		chromedp.Flag("ignore-certificate-errors", true),                // the authority of a scene is its own
	)
	allocator, cancelAllocator := chromedp.NewExecAllocator(t.Context(), options...)
	browser, cancelBrowser := chromedp.NewContext(allocator)
	// The browser lives as long as the context of the first call.
	if err := chromedp.Do(browser); err != nil {
		t.Fatalf("start chromium: %v", err)
	}
	ctx, cancelTimeout := context.WithTimeout(browser, atMost)
	t.Cleanup(func() {
		cancelTimeout()
		_ = chromedp.Cancel(browser) // waits, so that the profile can be removed
		cancelBrowser()
		cancelAllocator()
	})
	return ctx
}

// screenshot keeps what a person sees under artifacts/.
func screenshot(t *testing.T, browser context.Context, name string) {
	t.Helper()
	png, err := chromedp.Run(browser, wholePage)
	if err != nil {
		t.Fatalf("screenshot %s: %v", name, err)
	}
	dir := filepath.Join("..", "artifacts", "screenshots")
	if err := os.MkdirAll(dir, 0o755); err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(filepath.Join(dir, name+".png"), png, 0o644); err != nil {
		t.Fatal(err)
	}
}

// wholePage takes a picture of the page with what is beyond the window, if there is
// anything: else Chromium would look beside a page that runs from right to left.
var wholePage chromedp.Action[[]byte] = func(ctx context.Context, t *chromedp.Target) ([]byte, error) {
	size, err := cdp.Call(ctx, t, page.GetLayoutMetrics, cdp.Empty{})
	if err != nil {
		return nil, err
	}
	beyond := size.CSSContentSize.Height > float64(size.CSSLayoutViewport.ClientHeight)
	shot, err := cdp.Call(ctx, t, page.CaptureScreenshot, page.CaptureScreenshotParams{CaptureBeyondViewport: &beyond, Format: page.CaptureScreenshotFormatPng})
	return shot.Data, err
}

// phone makes the tab a phone of 360 x 740.
func phone() chromedp.Action[chromedp.Void] {
	return chromedp.EmulateViewport(360, 740, chromedp.EmulateScale(2))
}

// dark makes the tab prefer dark colours.
func dark() chromedp.Action[chromedp.Void] {
	return chromedp.Func(func(ctx context.Context, t *chromedp.Target) error {
		_, err := cdp.Call(ctx, t, emulation.SetEmulatedMedia, emulation.SetEmulatedMediaParams{
			Features: []*emulation.MediaFeature{{Name: "prefers-color-scheme", Value: "dark"}},
		})
		return err
	})
}

// field finds an input by the text of its label, button a button by its
// text: what a person goes by.
func field(label string) string {
	return `//label[normalize-space()="` + label + `"]/following::input[1]`
}

func button(text string) string { return `//button[normalize-space()="` + text + `"]` }

// callback is a client's redirect URI: it keeps the query it was called with.
type callback struct {
	URI   string
	calls chan url.Values
}

func newCallback(t *testing.T) *callback {
	t.Helper()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	c := &callback{URI: "http://" + l.Addr().String() + "/callback", calls: make(chan url.Values, 8)}
	mux := http.NewServeMux()
	mux.HandleFunc("/callback", func(w http.ResponseWriter, r *http.Request) {
		c.calls <- r.URL.Query()
		_, _ = w.Write([]byte("<title>client</title>You can close this window."))
	})
	server := &http.Server{Handler: mux, ReadHeaderTimeout: 5 * time.Second}
	go func() { _ = server.Serve(l) }()
	t.Cleanup(func() { _ = server.Close() })
	return c
}

// await returns the query of the next call.
func (c *callback) await(t *testing.T) url.Values {
	t.Helper()
	select {
	case q := <-c.calls:
		return q
	case <-time.After(30 * time.Second):
		t.Fatal("the browser was not sent back to the client")
		return nil
	}
}

// signIn fills in the sign-in page that the tab shows, and sends it.
func signIn(t *testing.T, browser context.Context) {
	t.Helper()
	fillInSignIn(t, browser)
	if err := chromedp.Do(browser, chromedp.Click(button("Sign in"))); err != nil {
		t.Fatalf("sign in: %v", err)
	}
}

func fillInSignIn(t *testing.T, browser context.Context) {
	t.Helper()
	if err := chromedp.Do(browser,
		chromedp.WaitVisible(field("Email")),
		chromedp.SendKeys(field("Email"), email),
		chromedp.SendKeys(field("Password"), password),
	); err != nil {
		t.Fatalf("sign in: %v", err)
	}
}

func pageText(t *testing.T, browser context.Context) string {
	t.Helper()
	text, err := chromedp.Run(browser, chromedp.Text("body"))
	if err != nil {
		t.Fatal(err)
	}
	return strings.Join(strings.Fields(text), " ")
}
