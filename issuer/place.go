package issuer

import (
	"regexp"
	"strings"
)

// place is where somebody was, in words. Both parts come from whoever was there,
// the address less so; they are shown, and nothing is decided by them.
func (w *words) place(p Place) placeView {
	view := placeView{Address: p.Address, Agent: cleanText(p.Agent)}
	if program, system := browserOf(p.Agent); program != "" && system != "" {
		view.Agent = w.text("apps.agent", program, system)
	} else if program != "" {
		view.Agent = program
	}
	return view
}

// Browsers name their kin before themselves, so that the first that fits here
// is the one.
var (
	browsers = []struct{ token, name string }{
		{"Edg/", "Edge"}, {"EdgA/", "Edge"}, {"EdgiOS/", "Edge"}, {"OPR/", "Opera"}, {"SamsungBrowser/", "Samsung Internet"},
		{"FxiOS/", "Firefox"}, {"Firefox/", "Firefox"}, {"CriOS/", "Chrome"}, {"HeadlessChrome/", "Chrome"}, {"Chrome/", "Chrome"}, {"Safari/", "Safari"},
	}
	systems = []struct{ token, name string }{
		{"iPhone", "iPhone"}, {"iPad", "iPad"}, {"Android", "Android"}, {"Windows", "Windows"},
		{"Mac OS X", "macOS"}, {"Macintosh", "macOS"}, {"CrOS", "ChromeOS"}, {"Linux", "Linux"}, {"X11", "Linux"},
	}
	// product is the first word of a User-Agent of RFC 9110 section 10.1.5.
	product = regexp.MustCompile(`^[A-Za-z0-9._-]{2,40}(/[A-Za-z0-9.+_-]{1,20})?`)
)

// browserOf returns what a person would call the program, and what it runs on;
// empty: not known. It is no measurement: any program may call itself anything.
func browserOf(agent string) (program, system string) {
	if !strings.HasPrefix(agent, "Mozilla/") {
		return product.FindString(agent), ""
	}
	for _, b := range browsers {
		if strings.Contains(agent, b.token) {
			program = b.name
			break
		}
	}
	for _, s := range systems {
		if strings.Contains(agent, s.token) {
			system = s.name
			break
		}
	}
	return program, system
}
