package jobboard

import "time"

// Job is a vacancy.
type Job struct {
	ID          string    `json:"id"`
	Title       string    `json:"title"`
	Company     string    `json:"company"`
	Location    string    `json:"location"`
	Remote      bool      `json:"remote"`
	SalaryMin   int       `json:"salary_min"` // euros a year
	SalaryMax   int       `json:"salary_max"`
	Skills      []string  `json:"skills"`
	Description string    `json:"description"`
	PostedAt    time.Time `json:"posted_at"`
}

func day(month time.Month, d int) time.Time {
	return time.Date(2026, month, d, 9, 0, 0, 0, time.UTC)
}

// seedJobs are the vacancies of the board, newest first.
var seedJobs = []Job{
	{"job-112", "Backend Engineer, Payments", "Nordlicht Pay", "Hamburg", true, 72000, 92000, []string{"go", "postgresql", "kafka"}, "Own the ledger service that settles two million card payments a day.", day(9, 18)},
	{"job-111", "Site Reliability Engineer", "Grid & Gauge", "Utrecht", true, 70000, 88000, []string{"kubernetes", "go", "prometheus"}, "Keep the metering platform of three energy suppliers up, and make its alarms rarer.", day(9, 17)},
	{"job-110", "Frontend Engineer", "Tandem Health", "Berlin", true, 62000, 80000, []string{"typescript", "react", "accessibility"}, "Build the booking pages that patients of 400 practices use, screen readers included.", day(9, 15)},
	{"job-109", "Data Engineer", "Parcelly", "Rotterdam", false, 65000, 82000, []string{"python", "postgresql", "airflow"}, "Move parcel tracking from nightly batches to streams.", day(9, 12)},
	{"job-108", "Security Engineer", "Halden Bank", "Oslo", false, 78000, 99000, []string{"go", "tls", "threat-modeling"}, "Review designs before they ship, and write the libraries that make reviews short.", day(9, 11)},
	{"job-107", "Machine Learning Engineer", "Kornfeld Foods", "Vienna", true, 68000, 90000, []string{"python", "pytorch", "sql"}, "Forecast fresh goods for 230 supermarkets, so that less is thrown away.", day(9, 8)},
	{"job-106", "Product Designer", "Tandem Health", "Berlin", true, 58000, 74000, []string{"figma", "research", "accessibility"}, "Shape how doctors and patients find a time that suits both.", day(9, 4)},
	{"job-105", "Android Developer", "Velo Commune", "Copenhagen", false, 60000, 78000, []string{"kotlin", "android", "bluetooth"}, "Unlock 12,000 shared bicycles, also where there is no reception.", day(9, 2)},
	{"job-104", "Database Administrator", "Stadtwerke Lahn", "Marburg", false, 56000, 70000, []string{"postgresql", "linux", "ansible"}, "Upgrade forty clusters without anybody noticing.", day(8, 28)},
	{"job-103", "Technical Writer", "Openbench", "Remote, Europe", true, 52000, 66000, []string{"writing", "http", "git"}, "Write the reference that developers read when the tutorial ends.", day(8, 24)},
	{"job-102", "Engineering Manager, Logistics", "Parcelly", "Rotterdam", true, 85000, 108000, []string{"leadership", "python", "hiring"}, "Lead two teams of seven through the move of the sorting software.", day(8, 20)},
	{"job-101", "Junior Web Developer", "Atelier Numérique", "Lyon", true, 38000, 46000, []string{"javascript", "html", "css"}, "Build small sites for museums and theatres, with a mentor at your side.", day(8, 17)},
}

// Resume is what a user says of themselves.
type Resume struct {
	UserID    string       `json:"user_id"`
	Name      string       `json:"name"`
	Headline  string       `json:"headline"`
	Location  string       `json:"location"`
	Skills    []string     `json:"skills"`
	Positions []Position   `json:"positions"`
	UpdatedAt time.Time    `json:"updated_at"`
	Languages []string     `json:"languages"`
	Education []Graduation `json:"education"`
}

// Position is one employment.
type Position struct {
	Title   string `json:"title"`
	Company string `json:"company"`
	From    int    `json:"from"`
	To      int    `json:"to,omitempty"` // absent: until now
}

// Graduation is one degree.
type Graduation struct {
	Degree string `json:"degree"`
	School string `json:"school"`
	Year   int    `json:"year"`
}

// sampleResume is what every user has, so that there is something to read.
func sampleResume(userID string) Resume {
	return Resume{
		UserID: userID, Name: "Robin Vermeer", Headline: "Backend engineer who likes boring databases", Location: "Utrecht",
		Skills: []string{"go", "postgresql", "linux", "http", "git"},
		Positions: []Position{
			{Title: "Backend Engineer", Company: "Kade Software", From: 2022},
			{Title: "Software Developer", Company: "Waterweg IT", From: 2018, To: 2022},
		},
		Languages: []string{"Dutch", "English", "German"},
		Education: []Graduation{{Degree: "BSc Computer Science", School: "Hogeschool Utrecht", Year: 2018}},
		UpdatedAt: day(8, 30),
	}
}
