"""Plain lower-case English words; most vocabularies hold each of them as one token."""

_TEXT = """
    able about above account across act action active add address adult after again age air all allow
    almost alone along already also always among amount and animal another answer any appear apple area
    argue arm army around arrive art article ask author away baby back bad bag ball bank bar base bath
    beach bear beat beautiful become bed before begin behind believe below best better between beyond big
    bill bird birth black block blue board boat body bond book border born both bottle bottom box boy
    brain branch bread break bridge brief bring broad brother brown build building burn bus business busy
    button buy cake call camera camp can capital captain car card care carry case cash cat catch cause
    cell center central century certain chair chance change chapter charge cheap check child choice choose
    church circle citizen city claim class clean clear climb clock close cloth cloud club coal coast coat
    coffee cold collect college color come common company compare complete computer concern condition
    consider contain contract control cook cool copy corn corner correct cost cotton count country couple
    course court cover cow create credit crop cross crowd cry culture cup current customer cut daily
    damage dance danger dark data date daughter day deal dear decade decide deep degree demand depend
    describe desert design desk detail develop difference different difficult dinner direct direction
    discover discuss disease distance divide doctor dog dollar door double down draw dream dress drink
    drive drop dry during dust duty each ear early earth east easy eat edge education effect effort egg
    eight either electric else empty end energy engine enjoy enough enter entire equal error escape even
    evening event ever every exact example except exchange exercise exist expect experience expert explain
    express eye face fact factor factory fail fair fall family famous far farm fast father favor fear
    feature feed feel few field fight figure fill film final find fine finger finish fire firm first fish
    fit five flat flight floor flow flower fly follow food foot for force foreign forest forget form
    formal forward four free fresh friend from front fruit fuel full fun function future gain game garden
    gas gate general gentle get gift girl give glass goal gold good government grand grass gray great
    green ground group grow growth guard guess guide hair half hall hand happen happy hard hat have head
    health hear heart heat heavy height help here high hill history hit hold hole home hope horse hospital
    hot hotel hour house how however huge human hundred hunt husband ice idea image important improve inch
    include income increase indeed index industry information inside instead interest into iron island
    issue item job join journey judge jump just keep key kind king kitchen know labor lack lady lake land
    language large last late later laugh law lead leader learn least leave left leg legal length less
    lesson letter level library lie life lift light like limit line link lip list listen little live local
    long look lose loss lost lot loud love low luck lunch machine magazine main major make man manage
    manner many map mark market marriage mass master match material matter may maybe meal mean measure
    meat media meet member memory mention message metal method middle might mile military milk mind mine
    minute mirror miss mix model modern moment money month moon more morning most mother motion mountain
    mouth move movie much music must name narrow nation national native natural nature near necessary neck
    need network never new news next nice night nine noise none north nose not note nothing notice novel
    now number object ocean off offer office often oil old once one only open operate opinion orange order
    other our out outside over own page pain paint pair paper parent park part party pass past path
    pattern pay peace pen people perfect perhaps period person phone photo phrase piece place plain plan
    plane plant plate play please plenty pocket poem point police policy poor popular position possible
    post pound power practice prepare present president press pretty prevent price print private problem
    process produce product program project promise proper protect prove provide public pull pure purpose
    push put quality quarter queen question quick quiet quite race radio rain raise range rate rather
    reach read ready real reason receive record red reduce region relate remain remember remove repeat
    reply report require rest result return rich ride right ring rise river road rock role roll roof room
    root round row rule run safe sail salt same sand save say scale scene school science score sea search
    season seat second section see seed seem sell send sense serve service set seven several shade shape
    share sharp she ship shirt shoe shop shore short shot should shoulder show side sight sign silver
    similar simple since sing single sister sit site situation six size skill skin sky sleep slow small
    smile smoke snow social soft soil soldier some son song soon sort sound source south space speak
    special speech speed spend spirit sport spot spread spring square staff stage stand standard star
    start state station stay steel step stick still stock stone stop store storm story strange stream
    street strong student study subject success such sudden sugar suit summer sun supply support sure
    surface surprise system table tail take talk tall task taste tax teach team tell ten term test than
    thank that the then theory there these they thick thin thing think third this those though thought
    thousand three through throw time tiny title today together tone too tool top total touch toward town
    track trade train travel treat tree trial trip trouble truck true trust truth try turn twelve twenty
    two type uncle under union unit until upon use usual valley value various very view village visit
    voice vote wait walk wall want warm wash watch water wave way weak wealth wear weather week weight
    well west wheel when where which while white who whole why wide wife wild will win wind window wine
    winter wire wise wish with within without woman wonder wood word work worker world worry write wrong
    yard year yellow yes yet young zero
"""

COMMON_WORDS = tuple(_TEXT.split())
