package issuer

import (
	"regexp"
	"strings"
	"unicode"
)

// place is where somebody was, in words. Both parts come from whoever was there,
// the address less so; they are shown, and nothing is decided by them.
func (w *words) place(p Place) placeView {
	view := placeView{Address: p.Address, Agent: w.isolate(cleanText(p.Agent))}
	if program, system := browserOf(p.Agent); program != "" && system != "" {
		view.Agent = w.text("apps.agent", w.isolate(program), w.isolate(system))
	} else if program != "" {
		view.Agent = w.isolate(program)
	}
	return view
}

// isolate keeps a name from turning the text around it, as bdi does.
func (w *words) isolate(name string) string {
	ascii := !strings.ContainsFunc(name, func(c rune) bool { return c > unicode.MaxASCII })
	if name == "" || ascii && w.direction() == "ltr" {
		return name
	}
	return "\u2068" + name + "\u2069"
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
